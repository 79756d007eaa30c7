#include "text.h"

#include <ctype.h>

int text_count(FILE *in, struct text_count *count)
{
    int c, inside = 0;

    while ((c = getc(in)) != EOF) {
        count->bytes++;
        if (c == '\n')
            count->lines++;
        if (isspace(c)) {
            inside = 0;
        } else if (!inside) {
            inside = 1;
            count->words++;
        }
    }
    return ferror(in) ? -1 : 0;
}
