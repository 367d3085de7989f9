/* Fixed point as docs/gap9-arithmetic.md has it, in few instructions of a 32-bit core. */
#ifndef FIXED_POINT_H
#define FIXED_POINT_H

#include "kernels.h"

#include <stdint.h>

static inline int32_t clamp(int32_t value, int32_t low, int32_t high) {
    return value < low ? low : value > high ? high : value;
}

/* Upper word of the product: one instruction. */
static inline int32_t multiply_high(int32_t a, int32_t b) { return (int32_t)(((int64_t)a * b) >> 32); }

/* (value + (1 << (shift - 1))) >> shift, saturated to +-2^30; shift 1..62, |value| <= 2^62. */
static inline int32_t shift_rounding(int64_t value, int32_t shift) {
    const int64_t limit = INT64_C(1) << 30;
    const int64_t result = (value + (INT64_C(1) << (shift - 1))) >> shift;
    return (int32_t)(result < -limit ? -limit : result > limit ? limit : result);
}

/* (acc * multiplier + (1 << (shift - 1))) >> shift, saturated to +-2^30 as all results become narrower anyway.
 *
 * From shift 33 on, which is usual, rounding only concerns the upper word: what is below cannot carry. */
static inline int32_t requant(int32_t acc, int32_t multiplier, int32_t shift) {
    if (shift > 32) {
        return (multiply_high(acc, multiplier) + (1 << (shift - 33))) >> (shift - 32);
    }
    return shift_rounding((int64_t)acc * multiplier, shift);
}

static inline int32_t requant_channel(int32_t acc, const channel_t *channel) {
    return requant(acc, channel->multiplier, channel->shift);
}

/* Place of a value in an activation table. */
static inline int32_t table_index(int32_t value) { return clamp(value, -512, 511) + 512; }

#endif
