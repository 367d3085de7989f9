/* Transfers of `transfer.h` that the DMA cannot make at once, and whether they moved what they should: 1 or 0. */
#include <stdio.h>
#include <string.h>

#include "memories.h"
#include "shim.h"
#include "transfer.h"

#define L1_SIZE (104 * 1024)
#define L2_SIZE (512 * 1024)
#define FROM 64
#define BACK (256 * 1024)

memories_t memories;

static uint8_t pattern(uint32_t i) {
    return (uint8_t)(i * 7 + i / 251);
}

/* Load rows, look at every byte of L1, store them elsewhere, and look at every byte of L2. */
static int round_trip(int32_t rows, int32_t row_size, int32_t stride, int32_t parts) {
    transfer_t transfer = {0};
    for (uint32_t i = 0; i < L2_SIZE; i++) {
        memories.l2[i] = i < BACK ? pattern(i) : 0;
    }
    transfer_load_rows(&transfer, 8, FROM, rows, row_size, stride);
    if (transfer.count != parts) {
        return 0;
    }
    transfer_wait(&transfer);
    for (int32_t i = 0; i < rows * row_size; i++) {
        if (memories.l1[8 + i] != pattern((uint32_t)(FROM + i / row_size * stride + i % row_size))) {
            return 0;
        }
    }
    transfer_store_rows(&transfer, 8, BACK, rows, row_size, stride);
    transfer_wait(&transfer);
    transfer_wait(&transfer); /* nothing is under way */
    for (int32_t i = 0; i < rows * stride; i++) {
        const int inside = i % stride < row_size;
        if (memories.l2[BACK + i] != (inside ? pattern((uint32_t)(FROM + i)) : 0)) {
            return 0;
        }
    }
    return 1;
}

int main(int count, char **arguments) {
    shim_configure(count > 1 && strcmp(arguments[1], "early") == 0 ? DMA_EARLY : DMA_LATE, 0);
    memories.l1 = pi_cl_l1_malloc(NULL, L1_SIZE);
    memories.l2 = pi_l2_malloc(L2_SIZE);
    shim_begin_step("transfers");
    printf("%d ", round_trip(1, 65535, 65535, 1));
    printf("%d ", round_trip(1, 65536, 65536, 2));
    printf("%d ", round_trip(100, 1000, 1000, 2));
    printf("%d ", round_trip(65, 1000, 1001, 1));
    printf("%d ", round_trip(100, 1000, 1001, 2));
    printf("%d ", round_trip(3, 33000, 40000, 3));
    printf("%d\n", round_trip(7, 1, 3, 1));
    shim_end_step();
    return 0;
}
