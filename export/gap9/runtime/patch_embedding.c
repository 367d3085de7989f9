#include "kernels.h"
#include "products.h"
#include "share.h"
#include "simd.h"

static inline void store(int16_t *y, int32_t s0, int32_t s1, int32_t s2, int32_t s3) {
    y[0] = (int16_t)clip16(s0);
    y[1] = (int16_t)clip16(s1);
    y[2] = (int16_t)clip16(s2);
    y[3] = (int16_t)clip16(s3);
}

void patch_embedding_kernel(const patch_embedding_tile_t *tile, int core, int cores) {
    const int32_t depth = tile->depth, outputs = tile->outputs;
    block_t at = first_block(tile->rows, outputs, core, cores);
    for (; at.left > 0; at = next_block(at, outputs)) {
        const int pair = at.row + 1 < tile->rows;
        const int16_t *a = tile->input + at.row * depth, *b = pair ? a + depth : a;
        const int16_t *weights = tile->weights + at.column * depth;
        const channel_t *channels = tile->channels + at.column;
        const sums_t sums = add_rows_16(biases(channels), a, b, weights, rows_of(4, depth), depth);
        const sums_t s = requant_channels(sums, channels);
        int16_t *y = tile->output + at.row * outputs + at.column;
        store(y, s.a0, s.a1, s.a2, s.a3);
        if (pair) {
            store(y + outputs, s.b0, s.b1, s.b2, s.b3);
        }
    }
}
