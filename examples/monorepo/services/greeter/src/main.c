/* greeter [NAME...]: greets each by name. */
#include "greeting.h"

#include <stdio.h>
#include <text.h>

int main(int argc, char **argv)
{
    char line[256];

    for (int i = 1; i < argc; i++) {
        greeting(line, sizeof line, argv[i]);
        text_frame(stdout, line);
    }
    return argc > 1 ? 0 : 2;
}
