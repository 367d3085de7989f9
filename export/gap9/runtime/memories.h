/* The memories of the chip, as the steps see them: two arenas and the RAM outside. Set by the platform's main. */
#ifndef MEMORIES_H
#define MEMORIES_H

#include <stdint.h>

#include "bsp/ram.h"
#include "pmsis.h"

typedef struct {
    uint8_t *l1, *l2;      /* arenas of network.l1_size and network.l2_size bytes */
    struct pi_device *ram; /* L3 */
    uint32_t weights;      /* address of weights.bin in L3 */
} memories_t;

extern memories_t memories;

static inline void *in_l1(uint32_t offset) {
    return memories.l1 + offset;
}

#endif
