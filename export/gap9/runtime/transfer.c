#include "transfer.h"

#include "memories.h"

#define LARGEST_COPY 65535

static pi_cl_dma_copy_t *add_part(transfer_t *transfer, pi_cl_dma_dir_e direction, uint32_t l1, uint32_t l2) {
    pi_cl_dma_copy_t *copy = &transfer->parts[transfer->count++];
    copy->dir = direction;
    copy->merge = 0;
    copy->loc = (uint32_t)(uintptr_t)(memories.l1 + l1);
    copy->ext = (uint32_t)(uintptr_t)(memories.l2 + l2);
    return copy;
}

static void start(transfer_t *transfer, pi_cl_dma_dir_e direction, uint32_t l1, uint32_t l2, int32_t size) {
    for (int32_t done = 0; done < size; done += LARGEST_COPY) {
        const int32_t part = size - done < LARGEST_COPY ? size - done : LARGEST_COPY;
        pi_cl_dma_copy_t *copy = add_part(transfer, direction, l1 + (uint32_t)done, l2 + (uint32_t)done);
        copy->size = (uint32_t)part;
        pi_cl_dma_memcpy(copy);
    }
}

static void start_rows(transfer_t *transfer, pi_cl_dma_dir_e direction, uint32_t l1, uint32_t l2, int32_t rows,
                       int32_t row_size, int32_t stride) {
    if (rows == 1 || row_size == stride) {
        start(transfer, direction, l1, l2, rows * row_size);
        return;
    }
    const int32_t most = LARGEST_COPY / row_size;
    for (int32_t row = 0; row < rows; row += most) {
        const int32_t part = rows - row < most ? rows - row : most;
        pi_cl_dma_copy_t *copy =
            add_part(transfer, direction, l1 + (uint32_t)(row * row_size), l2 + (uint32_t)(row * stride));
        copy->size = (uint32_t)(part * row_size);
        copy->length = (uint32_t)row_size;
        copy->stride = (uint32_t)stride;
        pi_cl_dma_memcpy_2d(copy);
    }
}

void transfer_load(transfer_t *transfer, uint32_t l1, uint32_t l2, int32_t size) {
    start(transfer, PI_CL_DMA_DIR_EXT2LOC, l1, l2, size);
}

void transfer_load_rows(transfer_t *transfer, uint32_t l1, uint32_t l2, int32_t rows, int32_t row_size, int32_t stride) {
    start_rows(transfer, PI_CL_DMA_DIR_EXT2LOC, l1, l2, rows, row_size, stride);
}

void transfer_store(transfer_t *transfer, uint32_t l1, uint32_t l2, int32_t size) {
    start(transfer, PI_CL_DMA_DIR_LOC2EXT, l1, l2, size);
}

void transfer_store_rows(transfer_t *transfer, uint32_t l1, uint32_t l2, int32_t rows, int32_t row_size, int32_t stride) {
    start_rows(transfer, PI_CL_DMA_DIR_LOC2EXT, l1, l2, rows, row_size, stride);
}

void transfer_wait(transfer_t *transfer) {
    for (int32_t part = 0; part < transfer->count; part++) {
        pi_cl_dma_wait(&transfer->parts[part]);
    }
    transfer->count = 0;
}
