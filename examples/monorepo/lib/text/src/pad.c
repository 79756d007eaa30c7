#include "text.h"

#include <string.h>

static void rule(FILE *out, size_t width)
{
    while (width-- > 0)
        putc('-', out);
    putc('\n', out);
}

void text_frame(FILE *out, const char *text)
{
    size_t width = strlen(text);

    rule(out, width);
    fprintf(out, "%s\n", text);
    rule(out, width);
}
