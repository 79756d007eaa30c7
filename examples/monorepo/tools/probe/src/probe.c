/* probe PORT: exits with 0 if something on this machine accepts connections on PORT. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    int port = argc == 2 ? atoi(argv[1]) : 0;
    int fd;

    if (port < 1 || port > 65535) {
        fprintf(stderr, "usage: probe PORT\n");
        return 2;
    }
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        perror("probe");
        return 1;
    }
    close(fd);
    return 0;
}
