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

/* How a sum is multiplied by `multiplier / 2^shift` and rounded, all in 32 bits; multiplier 2^30 .. 2^31 - 1, or 0.
 *
 * From shift 33 on, which is usual, rounding only concerns the upper word of the product: what is below cannot carry.
 * With a lower shift, the sum is raised first until it is 33. Sums too large for that are saturated, and so is what
 * becomes of them, as all results have 16 bits at most: they would give 2^28 or more, and the largest that can be
 * raised gives 2^27 or more. With a shift of 1 or 2, so would every sum but 0, and with 3 in their place it does. */
typedef struct {
    int32_t limit, raised; /* sums are saturated to limit, and raised by so many bits; 0 is none */
    int32_t shift;         /* of the upper word */
} scaling_t;

static inline scaling_t scaling_of(int32_t shift) {
    const int32_t raised = shift < 3 ? 30 : shift < 33 ? 33 - shift : 0;
    return (scaling_t){INT32_MAX >> raised, raised, shift < 33 ? 1 : shift - 32};
}

static inline int32_t raise_sum(scaling_t by, int32_t sum) { return clip_to(by.limit, sum) * (1 << by.raised); }

/* (sum * multiplier + (1 << (shift - 1))) >> shift of a raised sum; beyond 16 bits, any number of the same sign. */
static inline int32_t scale(scaling_t by, int32_t raised, int32_t multiplier) {
    return shift_rounding(multiply_high(raised, multiplier), 0, by.shift);
}

/* The same of a sum with a shift of its own. */
static inline int32_t requant(int32_t sum, int32_t multiplier, int32_t shift) {
    if (__builtin_expect(shift < 33, 0)) {
        const scaling_t by = scaling_of(shift);
        return scale(by, raise_sum(by, sum), multiplier);
    }
    return shift_rounding(multiply_high(sum, multiplier), 0, shift - 32);
}

/* Place of a value in an activation table. */
static inline int32_t table_index(int32_t value) { return clip10(value) + 512; }

#endif
