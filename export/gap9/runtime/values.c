#include "fixed_point.h"
#include "kernels.h"
#include "products.h"
#include "share.h"
#include "simd.h"

/* How a sum is divided by the weights of its row: (sum * reciprocal + (1 << (shift - 1))) >> shift, the reciprocal
 * being that of their sum.
 *
 * It is below 2^25, as the weights of a row add up to at least 255. Raising it by up to 6 bits, and for shifts below 27
 * the sum as well, makes every shift at least 33, of which the upper word of the product is enough. A sum too large to
 * be raised gives more than 127, as reciprocals are at least 2^7. */
typedef struct {
    int32_t limit, sum_raised, reciprocal_raised, shift;
} division_t;

static division_t division_of(int32_t shift) {
    const int32_t raised = shift < 33 ? 33 - shift : 0;
    const int32_t reciprocal_raised = raised < 6 ? raised : 6, sum_raised = raised - reciprocal_raised;
    return (division_t){INT32_MAX >> sum_raised, sum_raised, reciprocal_raised, shift + raised - 33};
}

static inline int8_t divided(division_t by, int32_t sum, int32_t reciprocal) {
    const int32_t raised = clamp(sum, -by.limit, by.limit) * (1 << by.sum_raised);
    return (int8_t)clip8(((multiply_high(raised, reciprocal) >> by.shift) + 1) >> 1);
}

static inline void finish(int8_t *y, division_t by, uint32_t reciprocal, int32_t s0, int32_t s1, int32_t s2,
                          int32_t s3) {
    const int32_t factor = (int32_t)(reciprocal << by.reciprocal_raised);
    y[0] = divided(by, s0, factor);
    y[1] = divided(by, s1, factor);
    y[2] = divided(by, s2, factor);
    y[3] = divided(by, s3, factor);
}

static inline void keep(int32_t *sums, int32_t s0, int32_t s1, int32_t s2, int32_t s3) {
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

void values_kernel(const values_tile_t *tile, int core, int cores) {
    const int32_t keys = tile->key_count, depth = tile->depth;
    const division_t by = division_of(tile->shift);
    block_t at = first_block(tile->rows, depth, core, cores);
    for (; at.left > 0; at = next_block(at, depth)) {
        const int pair = at.row + 1 < tile->rows;
        const int32_t place = at.row * depth + at.column, below = pair ? depth : 0;
        const uint8_t *a = tile->weights + at.row * tile->stride, *b = pair ? a + tile->stride : a;
        int32_t *sums = tile->sums + place;
        sums_t s = {0};
        if (!tile->first) {
            s = (sums_t){sums[0],     sums[1],         sums[2],         sums[3],
                         sums[below], sums[below + 1], sums[below + 2], sums[below + 3]};
        }
        s = add_rows_unsigned(s, a, b, tile->values + at.column * keys, rows_of(4, keys), keys);
        if (tile->last) {
            int8_t *y = tile->output + place;
            finish(y + below, by, tile->reciprocals[at.row + (pair ? 1 : 0)], s.b0, s.b1, s.b2, s.b3);
            finish(y, by, tile->reciprocals[at.row], s.a0, s.a1, s.a2, s.a3);
        } else {
            keep(sums + below, s.b0, s.b1, s.b2, s.b3);
            keep(sums, s.a0, s.a1, s.a2, s.a3);
        }
    }
}
