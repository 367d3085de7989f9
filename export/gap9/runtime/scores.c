#include "fixed_point.h"
#include "kernels.h"
#include "products.h"
#include "share.h"

static inline void finish(const scores_tile_t *tile, int16_t *scores, const int32_t sums[4], int32_t count) {
    for (int32_t key = 0; key < count; key++) {
        scores[key] = (int16_t)clip16(requant(sums[key], tile->multiplier, tile->shift));
    }
}

void scores_kernel(const scores_tile_t *tile, int core, int cores) {
    const int32_t depth = tile->depth;
    block_t at = first_block(tile->rows, tile->key_count, core, cores);
    for (; at.left > 0; at = next_block(at, tile->key_count)) {
        const int pair = at.row + 1 < tile->rows;
        const int32_t count = clamp(tile->key_count - at.column, 1, 4);
        const int8_t *a = tile->queries + at.row * depth, *b = pair ? a + depth : a;
        const int8_t *keys = tile->keys + at.column * depth;
        const sums_t s = add_rows((sums_t){0}, a, b, keys, rows_of(count, depth), depth);
        int16_t *scores = tile->scores + at.row * tile->stride + at.column;
        finish(tile, scores, (const int32_t[4]){s.a0, s.a1, s.a2, s.a3}, count);
        if (pair) {
            finish(tile, scores + tile->stride, (const int32_t[4]){s.b0, s.b1, s.b2, s.b3}, count);
        }
    }
}
