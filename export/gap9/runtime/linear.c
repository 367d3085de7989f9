#include "fixed_point.h"
#include "kernels.h"
#include "products.h"
#include "share.h"
#include "simd.h"

#include <stddef.h>

static inline void store_plain(int8_t *y, int32_t stride, int32_t s0, int32_t s1, int32_t s2, int32_t s3) {
    y[0] = (int8_t)clip8(s0);
    y[stride] = (int8_t)clip8(s1);
    y[2 * stride] = (int8_t)clip8(s2);
    y[3 * stride] = (int8_t)clip8(s3);
}

static inline void store_activated(int8_t *y, int32_t stride, const int8_t *table, int32_t s0, int32_t s1, int32_t s2,
                                   int32_t s3) {
    const int8_t y0 = table[table_index(s0)], y1 = table[table_index(s1)];
    const int8_t y2 = table[table_index(s2)], y3 = table[table_index(s3)];
    y[0] = y0;
    y[stride] = y1;
    y[2 * stride] = y2;
    y[3 * stride] = y3;
}

static inline void add_to_residual(int16_t *y, int32_t s0, int32_t s1, int32_t s2, int32_t s3) {
    y[0] = (int16_t)clip16(y[0] + s0);
    y[1] = (int16_t)clip16(y[1] + s1);
    y[2] = (int16_t)clip16(y[2] + s2);
    y[3] = (int16_t)clip16(y[3] + s3);
}

static inline void finish_row(const linear_tile_t *tile, int32_t row, int32_t column, int32_t s0, int32_t s1,
                              int32_t s2, int32_t s3) {
    if (tile->residual != NULL) {
        add_to_residual(tile->residual + row * tile->outputs + column, s0, s1, s2, s3);
        return;
    }
    int8_t *y = tile->output + row * tile->row_stride + column * tile->output_stride;
    if (tile->table != NULL) {
        store_activated(y, tile->output_stride, tile->table, s0, s1, s2, s3);
    } else {
        store_plain(y, tile->output_stride, s0, s1, s2, s3);
    }
}

void linear_kernel(const linear_tile_t *tile, int core, int cores) {
    const int32_t depth = tile->depth;
    block_t at = first_block(tile->rows, tile->outputs, core, cores);
    for (; at.left > 0; at = next_block(at, tile->outputs)) {
        const int pair = at.row + 1 < tile->rows;
        const int8_t *a = tile->input + at.row * depth, *b = pair ? a + depth : a;
        const channel_t *channels = tile->channels + at.column;
        const sums_t sums = add_packed(biases(channels), a, b, tile->weights + at.column * depth, depth);
        const sums_t s = requant_channels(sums, channels);
        finish_row(tile, at.row, at.column, s.a0, s.a1, s.a2, s.a3);
        if (pair) {
            finish_row(tile, at.row + 1, at.column, s.b0, s.b1, s.b2, s.b3);
        }
    }
}
