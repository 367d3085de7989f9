#include "fixed_point.h"
#include "kernels.h"
#include "products.h"
#include "share.h"

static inline void finish(int16_t *output, const channel_t *channels, const int32_t sums[4], int32_t count) {
    for (int32_t o = 0; o < count; o++) {
        output[o] = (int16_t)clip16(requant_channel(sums[o], &channels[o]));
    }
}

void patch_embedding_kernel(const patch_embedding_tile_t *tile, int core, int cores) {
    const int32_t depth = tile->depth, outputs = tile->outputs;
    block_t at = first_block(tile->rows, outputs, core, cores);
    for (; at.left > 0; at = next_block(at, outputs)) {
        const int pair = at.row + 1 < tile->rows;
        const int32_t count = clamp(outputs - at.column, 1, 4);
        const int16_t *a = tile->input + at.row * depth, *b = pair ? a + depth : a;
        const rows_t rows = rows_of(count, depth), channel = rows_of(count, 1);
        const channel_t *c = tile->channels + at.column;
        const int32_t bias0 = c->bias, bias1 = c[channel.second].bias;
        const int32_t bias2 = c[channel.third].bias, bias3 = c[channel.fourth].bias;
        sums_t s = {bias0, bias1, bias2, bias3, bias0, bias1, bias2, bias3};
        s = add_rows_16(s, a, b, tile->weights + at.column * depth, rows, depth);
        int16_t *output = tile->output + at.row * outputs + at.column;
        finish(output, c, (const int32_t[4]){s.a0, s.a1, s.a2, s.a3}, count);
        if (pair) {
            finish(output + outputs, c, (const int32_t[4]){s.b0, s.b1, s.b2, s.b3}, count);
        }
    }
}
