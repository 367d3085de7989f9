#include "fixed_point.h"
#include "kernels.h"
#include "products.h"
#include "share.h"

#include <stddef.h>

static inline void store_plain(const linear_tile_t *tile, int32_t row, int32_t column, const int32_t sums[4]) {
    const channel_t *channels = tile->channels + column;
    int8_t *output = tile->output + row * tile->row_stride + column * tile->output_stride;
    for (int o = 0; o < 4; o++) {
        output[o * tile->output_stride] = (int8_t)clip8(requant_channel(sums[o], &channels[o]));
    }
}

static inline void store_activated(const linear_tile_t *tile, int32_t row, int32_t column, const int32_t sums[4]) {
    const channel_t *channels = tile->channels + column;
    int8_t *output = tile->output + row * tile->row_stride + column * tile->output_stride;
    for (int o = 0; o < 4; o++) {
        output[o * tile->output_stride] = tile->table[table_index(requant_channel(sums[o], &channels[o]))];
    }
}

static inline void add_to_residual(const linear_tile_t *tile, int32_t row, int32_t column, const int32_t sums[4]) {
    const channel_t *channels = tile->channels + column;
    int16_t *residual = tile->residual + row * tile->outputs + column;
    for (int o = 0; o < 4; o++) {
        residual[o] = (int16_t)clip16(residual[o] + requant_channel(sums[o], &channels[o]));
    }
}

static inline void finish(const linear_tile_t *tile, int32_t row, int32_t column, const int32_t sums[4]) {
    if (tile->residual != NULL) {
        add_to_residual(tile, row, column, sums);
    } else if (tile->table != NULL) {
        store_activated(tile, row, column, sums);
    } else {
        store_plain(tile, row, column, sums);
    }
}

void linear_kernel(const linear_tile_t *tile, int core, int cores) {
    const int32_t depth = tile->depth;
    block_t at = first_block(tile->rows, tile->outputs, core, cores);
    for (; at.left > 0; at = next_block(at, tile->outputs)) {
        const int pair = at.row + 1 < tile->rows;
        const int8_t *a = tile->input + at.row * depth, *b = pair ? a + depth : a;
        const channel_t *c = tile->channels + at.column;
        sums_t s = {c[0].bias, c[1].bias, c[2].bias, c[3].bias, c[0].bias, c[1].bias, c[2].bias, c[3].bias};
        s = add_packed(s, a, b, tile->weights + at.column * depth, depth);
        finish(tile, at.row, at.column, (const int32_t[4]){s.a0, s.a1, s.a2, s.a3});
        if (pair) {
            finish(tile, at.row + 1, at.column, (const int32_t[4]){s.b0, s.b1, s.b2, s.b3});
        }
    }
}
