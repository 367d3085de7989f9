#include "fixed_point.h"
#include "kernels.h"
#include "products.h"
#include "share.h"
#include "simd.h"

static inline void finish(int8_t *y, scaling_t by, int32_t reciprocal, int32_t s0, int32_t s1, int32_t s2, int32_t s3) {
    y[0] = (int8_t)clip8(scale(by, s0, reciprocal));
    y[1] = (int8_t)clip8(scale(by, s1, reciprocal));
    y[2] = (int8_t)clip8(scale(by, s2, reciprocal));
    y[3] = (int8_t)clip8(scale(by, s3, reciprocal));
}

static inline void keep(int32_t *sums, int32_t s0, int32_t s1, int32_t s2, int32_t s3) {
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

void values_kernel(const values_tile_t *tile, int core, int cores) {
    const int32_t keys = tile->key_count, depth = tile->depth;
    /* Reciprocals are below 2^25, as the weights of a row add up to at least 255: they can be raised by 6 bits, before
     * sums are. Sums too large to be raised would give more than 8 bits, as reciprocals are at least 2^7. */
    const int32_t raised = clamp(33 - tile->shift, 0, 6);
    const scaling_t by = scaling_of(tile->shift + raised);
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
            s = raise_sums(by, s);
            const uint32_t of_a = tile->reciprocals[at.row], of_b = tile->reciprocals[at.row + (pair ? 1 : 0)];
            finish(y + below, by, (int32_t)(of_b << raised), s.b0, s.b1, s.b2, s.b3);
            finish(y, by, (int32_t)(of_a << raised), s.a0, s.a1, s.a2, s.a3);
        } else {
            keep(sums + below, s.b0, s.b1, s.b2, s.b3);
            keep(sums, s.a0, s.a1, s.a2, s.a3);
        }
    }
}
