#include "fixed_point.h"
#include "kernels.h"
#include "products.h"
#include "share.h"
#include "simd.h"

static inline int16_t score_of(const scores_tile_t *tile, int32_t sum) {
    return (int16_t)clip16(requant(sum, tile->multiplier, tile->shift));
}

/* Of `count` keys, 1 to 4. */
static inline void store(const scores_tile_t *tile, int16_t *scores, int32_t count, int32_t s0, int32_t s1, int32_t s2,
                         int32_t s3) {
    scores[0] = score_of(tile, s0);
    if (count > 1) {
        scores[1] = score_of(tile, s1);
    }
    if (count > 2) {
        scores[2] = score_of(tile, s2);
    }
    if (count > 3) {
        scores[3] = score_of(tile, s3);
    }
}

void scores_kernel(const scores_tile_t *tile, int core, int cores) {
    const int32_t depth = tile->depth;
    block_t at = first_block(tile->rows, tile->key_count, core, cores);
    for (; at.left > 0; at = next_block(at, tile->key_count)) {
        const int pair = at.row + 1 < tile->rows;
        const int32_t count = tile->key_count - at.column;
        const int8_t *a = tile->queries + at.row * depth, *b = pair ? a + depth : a;
        const int8_t *keys = tile->keys + at.column * depth;
        const sums_t s = add_rows((sums_t){0}, a, b, keys, rows_of(count, depth), depth);
        int16_t *scores = tile->scores + at.row * tile->stride + at.column;
        store(tile, scores, count, s.a0, s.a1, s.a2, s.a3);
        if (pair) {
            store(tile, scores + tile->stride, count, s.b0, s.b1, s.b2, s.b3);
        }
    }
}
