#include "fixed_point.h"
#include "kernels.h"
#include "products.h"
#include "share.h"

/* The rounded quotient of a row's sums and its weights: (sum * reciprocal + (1 << (shift - 1))) >> shift.
 *
 * A reciprocal is below 2^25, as the weights of a row add up to at least 255. Raising it turns a shift of 27..32 into
 * one of 33, of which the upper word of the product is enough. */
static inline int32_t divide(int32_t sum, uint32_t reciprocal, int32_t shift) {
    if (shift > 32) {
        return requant(sum, (int32_t)reciprocal, shift);
    }
    if (shift > 26) {
        return requant(sum, (int32_t)(reciprocal << (33 - shift)), 33);
    }
    return shift_rounding((int64_t)sum * reciprocal, shift);
}

static inline void finish(const values_tile_t *tile, int32_t row, int32_t column, const int32_t sums[4]) {
    const uint32_t reciprocal = tile->reciprocals[row];
    int8_t *output = tile->output + row * tile->depth + column;
    for (int32_t j = 0; j < 4 && column + j < tile->depth; j++) {
        output[j] = (int8_t)clip8(divide(sums[j], reciprocal, tile->shift));
    }
}

static inline void keep(int32_t *kept, const int32_t sums[4], int32_t count) {
    for (int32_t j = 0; j < count; j++) {
        kept[j] = sums[j];
    }
}

void values_kernel(const values_tile_t *tile, int core, int cores) {
    const int32_t keys = tile->key_count, depth = tile->depth;
    block_t at = first_block(tile->rows, depth, core, cores);
    for (; at.left > 0; at = next_block(at, depth)) {
        const int pair = at.row + 1 < tile->rows;
        const int32_t count = clamp(depth - at.column, 1, 4);
        const uint8_t *a = tile->weights + at.row * tile->stride, *b = pair ? a + tile->stride : a;
        int32_t *kept_a = tile->sums + at.row * depth + at.column, *kept_b = pair ? kept_a + depth : kept_a;
        sums_t s = {0};
        if (!tile->first) {
            const rows_t next = rows_of(count, 1);
            s = (sums_t){kept_a[0], kept_a[next.second], kept_a[next.third], kept_a[next.fourth],
                         kept_b[0], kept_b[next.second], kept_b[next.third], kept_b[next.fourth]};
        }
        s = add_rows_unsigned(s, a, b, tile->values + at.column * keys, rows_of(count, keys), keys);
        const int32_t sums_a[4] = {s.a0, s.a1, s.a2, s.a3}, sums_b[4] = {s.b0, s.b1, s.b2, s.b3};
        if (tile->last) {
            finish(tile, at.row, at.column, sums_a);
            if (pair) {
                finish(tile, at.row + 1, at.column, sums_b);
            }
        } else {
            keep(kept_a, sums_a, count);
            if (pair) {
                keep(kept_b, sums_b, count);
            }
        }
    }
}
