#include "greeting.h"

#include <stdio.h>

/* The greeting is the same for everybody. */
void greeting(char *line, size_t size, const char *name)
{
    snprintf(line, size, "Hello, %s.", name);
}
