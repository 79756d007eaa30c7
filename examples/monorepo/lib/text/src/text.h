#ifndef TEXT_H
#define TEXT_H

#include <stddef.h>
#include <stdio.h>

/* What a text is made of. */
struct text_count {
    size_t lines;
    size_t words;
    size_t bytes;
};

/* Adds what `in` holds to `count`. Returns 0, or -1 when reading failed. */
int text_count(FILE *in, struct text_count *count);

/* Writes `text` between two rules of its width. */
void text_frame(FILE *out, const char *text);

#endif
