/* What the parts of the shim share. */
#ifndef SHIM_INTERNAL_H
#define SHIM_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "shim.h"

typedef enum { LEVEL_L1, LEVEL_L2 } level_t;

typedef struct {
    dma_mode_t mode;
    uint32_t seed;
    const char *step;
    traffic_t traffic;
} shim_t;

extern shim_t shim;

/* Ends the program. */
#if defined(__GNUC__)
__attribute__((noreturn, format(printf, 1, 2)))
#endif
void shim_fail(const char *format, ...);

/* Where an address of the chip lies here, if all `size` bytes are in one allocation; else NULL. `offset` becomes the
 * distance from its start. */
uint8_t *shim_locate(level_t level, uint32_t address, uint64_t size, uint32_t *offset);

/* The same for L3; ends the program if the bytes were not allocated. */
uint8_t *shim_ram(uint32_t address, uint32_t size);

/* Whether accesses to memory are errors; only the address sanitizer notices. */
void shim_forbid(const void *memory, size_t size);
void shim_allow(const void *memory, size_t size);

void shim_check_transfers(int with_l3);

#endif
