/* clock [FORMAT]: the time of day between two rules. */
#include <stdio.h>
#include <text.h>
#include <time.h>

int main(int argc, char **argv)
{
    char line[256];
    time_t now = time(NULL);

    if (strftime(line, sizeof line, argc > 1 ? argv[1] : "%H:%M:%S", localtime(&now)) == 0) {
        fprintf(stderr, "clock: the format gives nothing, or more than %zu bytes\n", sizeof line - 1);
        return 1;
    }
    text_frame(stdout, line);
    return 0;
}
