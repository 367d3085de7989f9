/* What the host's PMSIS checks, and how the test program steers it.
 *
 * Errors name the step and the address, and end the program with status 2:
 * - a transfer outside the memory that was allocated, of 0 or more than 65,535 bytes, with rows that overlap or do not
 *   make up its size, the 17th under way, or one that touches what another one under way writes
 * - a wait for what is not under way, and a step that ends before all its transfers were waited for
 * - bytes written around an allocation
 *
 * Memory starts as poison, L1 becomes poison again after every step, and so does what a transfer will write, until it
 * is waited for. With the address sanitizer even reading the L1 side of a transfer under way is an error.
 */
#ifndef SHIM_H
#define SHIM_H

#include <stddef.h>
#include <stdint.h>

/* When a transfer moves its bytes: both happen on the chip, so the results of both must agree. */
typedef enum { DMA_LATE, DMA_EARLY } dma_mode_t;

/* Moved since the step began, in bytes. */
typedef struct {
    uint64_t read, written; /* L2 to L1, L1 to L2 */
    uint64_t transfers;
    uint64_t streamed;     /* L3 to L2 */
    uint64_t instructions; /* spent on moving and checking, not on the network */
} traffic_t;

/* Args:
 *     seed: shuffles the order in which cores run; 0 keeps 0 to 7. */
void shim_configure(dma_mode_t mode, uint32_t seed);

void shim_begin_step(const char *name);
void shim_end_step(void);

/* After the last step, when nothing may be under way from L3 either. */
void shim_end_run(void);

/* Overwrite memory with what no program may rely on. */
void shim_poison(void *memory, size_t size);

const traffic_t *shim_traffic(void);

#endif
