#ifndef GREETING_H
#define GREETING_H

#include <stddef.h>

void greeting(char *line, size_t size, const char *name);

#endif
