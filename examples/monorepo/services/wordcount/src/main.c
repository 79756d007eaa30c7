/* wordcount: lines, words and bytes of standard input. */
#include <stdio.h>
#include <text.h>

int main(void)
{
    struct text_count count = { 0, 0, 0 };

    if (text_count(stdin, &count) != 0) {
        perror("wordcount: standard input");
        return 1;
    }
    printf("%zu %zu %zu\n", count.lines, count.words, count.bytes);
    return 0;
}
