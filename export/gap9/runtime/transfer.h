/* DMA between L2 and L1. Addresses are offsets in the two arenas, sizes and strides are bytes.
 *
 * A transfer is under way from load or store to wait; until then its L1 side must not be touched. The rows of a tile
 * follow each other in L1 and are `stride` bytes apart in L2.
 */
#ifndef TRANSFER_H
#define TRANSFER_H

#include <stdint.h>

#include "pmsis.h"

/* The DMA moves at most 65,535 bytes at a time. L1 has 128 KiB, so that no tile needs more parts than these: two if its
 * rows are short, three if only one row of more than 32 KiB fits into a part. The tiles of a step share L1, which
 * keeps all its transfers together below the 16 that the DMA can have under way. */
#define TRANSFER_PARTS 3

/* One half of a double buffer; starts as zeros. */
typedef struct {
    pi_cl_dma_copy_t parts[TRANSFER_PARTS];
    int32_t count;
} transfer_t;

void transfer_load(transfer_t *transfer, uint32_t l1, uint32_t l2, int32_t size);
void transfer_load_rows(transfer_t *transfer, uint32_t l1, uint32_t l2, int32_t rows, int32_t row_size, int32_t stride);
void transfer_store(transfer_t *transfer, uint32_t l1, uint32_t l2, int32_t size);
void transfer_store_rows(transfer_t *transfer, uint32_t l1, uint32_t l2, int32_t rows, int32_t row_size, int32_t stride);

/* Returns at once where nothing is under way. */
void transfer_wait(transfer_t *transfer);

#endif
