/* What the command line of the test program says. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdint.h>

#include "shim.h"

typedef struct {
    const char *weights, *vectors; /* files */
    dma_mode_t dma;
    uint32_t shuffle;
    const char *dump; /* file, or NULL */
    const char *only; /* name or number of a vector, or NULL */
    int count, json;
} options_t;

/* Ends the program with status 2 and the usage if the command line makes no sense. */
options_t parse_options(int count, char **arguments);

#endif
