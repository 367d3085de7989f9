/* Test vectors: windows, and what the reference makes of them. All numbers are little-endian, like the chip.
 *
 * The file is a header, then for every vector its name, the window, the logits, and one checksum per step. */
#ifndef TEST_VECTORS_H
#define TEST_VECTORS_H

#include <stdint.h>

#include "network.h"

#define VECTORS_MAGIC "GAPV"
#define VECTORS_VERSION 1
#define VECTOR_NAME_SIZE 32

typedef struct {
    char magic[4];
    uint32_t version, vectors, steps, input_size, logits_size; /* sizes in bytes */
} vectors_header_t;

/* NULL if the file belongs to this network, else what is wrong with it. */
const char *vectors_problem(const vectors_header_t *header);

/* CRC-32 of the output of a step, without what lies between its rows. */
uint32_t output_checksum(const network_step_t *step, const uint8_t *l2);

#endif
