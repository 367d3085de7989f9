/* Fixed point as docs/gap9-arithmetic.md has it, without a 64-bit shift, which 32-bit cores do not have. */
#ifndef FIXED_POINT_H
#define FIXED_POINT_H

#include "simd.h"

#include <stdint.h>

static inline int32_t clamp(int32_t value, int32_t low, int32_t high) {
    return value < low ? low : value > high ? high : value;
}

/* Upper word of the product: one instruction. */
static inline int32_t multiply_high(int32_t a, int32_t b) { return (int32_t)(((int64_t)a * b) >> 32); }

/* (acc * multiplier + (1 << (shift - 1))) >> shift; where the magnitude of that is above 2^27, any other number above
 * 2^27 of the same sign, as whoever asks saturates to 16 bits or less. Multiplier 2^30 .. 2^31 - 1, or 0.
 *
 * From shift 33 on, which is usual, rounding only concerns the upper word: what is below cannot carry. All but the last
 * bit are shifted out first, so that half a unit is 1. Other sums are raised until the shift is 33. One too large to be
 * raised would give more than 2^27, and so does the largest that is not; with a shift of 1 or 2 any sum would, and with
 * a shift of 3 any still does. */
static inline int32_t requant(int32_t acc, int32_t multiplier, int32_t shift) {
    if (__builtin_expect(shift < 33, 0)) {
        const int32_t raised = 33 - (shift < 3 ? 3 : shift), limit = INT32_MAX >> raised;
        acc = clamp(acc, -limit, limit) * (1 << raised);
        shift = 33;
    }
    return ((multiply_high(acc, multiplier) >> (shift - 33)) + 1) >> 1;
}

/* Place of a value in an activation table. */
static inline int32_t table_index(int32_t value) { return clip10(value) + 512; }

#endif
