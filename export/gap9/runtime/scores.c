#include "fixed_point.h"
#include "kernels.h"
#include "products.h"
#include "share.h"
#include "simd.h"

/* How a raised sum becomes a score. */
typedef struct {
    scaling_t by;
    int32_t multiplier;
} ratio_t;

static inline int16_t score_of(ratio_t ratio, int32_t sum) {
    return (int16_t)clip16(scale(ratio.by, sum, ratio.multiplier));
}

/* Of `count` keys, 1 or more. */
static inline void store(int16_t *scores, int32_t count, ratio_t ratio, int32_t s0, int32_t s1, int32_t s2,
                         int32_t s3) {
    scores[0] = score_of(ratio, s0);
    if (count >= 4) {
        scores[1] = score_of(ratio, s1);
        scores[2] = score_of(ratio, s2);
        scores[3] = score_of(ratio, s3);
    } else if (count > 1) {
        scores[1] = score_of(ratio, s1);
        if (count > 2) {
            scores[2] = score_of(ratio, s2);
        }
    }
}

void scores_kernel(const scores_tile_t *tile, int core, int cores) {
    const int32_t depth = tile->depth;
    const ratio_t ratio = {scaling_of(tile->shift), tile->multiplier};
    const rows_t four = rows_of(4, depth);
    block_t at = first_block(tile->rows, tile->key_count, core, cores);
    for (; at.left > 0; at = next_block(at, tile->key_count)) {
        const int pair = at.row + 1 < tile->rows;
        const int32_t count = tile->key_count - at.column;
        const int8_t *a = tile->queries + at.row * depth, *b = pair ? a + depth : a;
        const int8_t *keys = tile->keys + at.column * depth;
        const rows_t rows = count >= 4 ? four : rows_of(count, depth);
        const sums_t s = raise_sums(ratio.by, add_rows((sums_t){0}, a, b, keys, rows, depth));
        int16_t *scores = tile->scores + at.row * tile->stride + at.column;
        store(scores, count, ratio, s.a0, s.a1, s.a2, s.a3);
        if (pair) {
            store(scores + tile->stride, count, ratio, s.b0, s.b1, s.b2, s.b3);
        }
    }
}
