/* Products of 2 rows with 4 others, the core of all matrix products: of 6 words loaded, each is used 2 or 4 times, and
 * the 8 sums stay in registers.
 *
 * Rows that do not exist, at the edge of a matrix, are given as a neighbour that does; their sums are not used.
 */
#ifndef PRODUCTS_H
#define PRODUCTS_H

#include "fixed_point.h"
#include "kernels.h"
#include "simd.h"
#include "vectors.h"

/* Sums of the first row with the 4 others, and of the second. */
typedef struct {
    int32_t a0, a1, a2, a3, b0, b1, b2, b3;
} sums_t;

/* Both rows begin with the biases of 4 outputs. */
static inline sums_t biases(const channel_t *channels) {
    const int32_t s0 = channels[0].bias, s1 = channels[1].bias, s2 = channels[2].bias, s3 = channels[3].bias;
    return (sums_t){s0, s1, s2, s3, s0, s1, s2, s3};
}

/* All 8 at once, so that multipliers and shifts are loaded once for both rows: stores may not come between. */
static inline sums_t requant_channels(sums_t s, const channel_t *channels) {
    s.a0 = requant(s.a0, channels[0].multiplier, channels[0].shift);
    s.b0 = requant(s.b0, channels[0].multiplier, channels[0].shift);
    s.a1 = requant(s.a1, channels[1].multiplier, channels[1].shift);
    s.b1 = requant(s.b1, channels[1].multiplier, channels[1].shift);
    s.a2 = requant(s.a2, channels[2].multiplier, channels[2].shift);
    s.b2 = requant(s.b2, channels[2].multiplier, channels[2].shift);
    s.a3 = requant(s.a3, channels[3].multiplier, channels[3].shift);
    s.b3 = requant(s.b3, channels[3].multiplier, channels[3].shift);
    return s;
}

static inline sums_t raise_sums(scaling_t by, sums_t s) {
    if (__builtin_expect(by.raised > 0, 0)) {
        return (sums_t){raise_sum(by, s.a0), raise_sum(by, s.a1), raise_sum(by, s.a2), raise_sum(by, s.a3),
                        raise_sum(by, s.b0), raise_sum(by, s.b1), raise_sum(by, s.b2), raise_sum(by, s.b3)};
    }
    return s;
}

/* Offsets of 4 rows of a matrix, of which `count` exist: the last one stands for the others. */
typedef struct {
    int32_t second, third, fourth;
} rows_t;

static inline rows_t rows_of(int32_t count, int32_t stride) {
    const int32_t second = count > 1 ? stride : 0;
    const int32_t third = second + (count > 2 ? stride : 0);
    return (rows_t){second, third, third + (count > 3 ? stride : 0)};
}

/* Of rows at these offsets from `w`, whose next 4 k come `step` bytes later. */
static inline sums_t add_words(sums_t s, const int8_t *a, const int8_t *b, const int8_t *w, rows_t rows, int32_t step,
                               int32_t depth) {
    const int8_t *second = w + rows.second, *third = w + rows.third, *fourth = w + rows.fourth;
    for (int32_t k = 0, at = 0; k < depth; k += 4, at += step) {
        const word8_t xa = load8(a + k), xb = load8(b + k);
        const word8_t w0 = load8(w + at), w1 = load8(second + at), w2 = load8(third + at), w3 = load8(fourth + at);
        s.a0 = dot8(xa, w0, s.a0);
        s.b0 = dot8(xb, w0, s.b0);
        s.a1 = dot8(xa, w1, s.a1);
        s.b1 = dot8(xb, w1, s.b1);
        s.a2 = dot8(xa, w2, s.a2);
        s.b2 = dot8(xb, w2, s.b2);
        s.a3 = dot8(xa, w3, s.a3);
        s.b3 = dot8(xb, w3, s.b3);
    }
    return s;
}

/* `w` is the first of 4 rows. */
static inline sums_t add_rows(sums_t s, const int8_t *a, const int8_t *b, const int8_t *w, rows_t rows, int32_t depth) {
    return add_words(s, a, b, w, rows, 4, depth);
}

/* `w` holds, for every 4 k, the 4 k of each of 4 rows. */
static inline sums_t add_packed(sums_t s, const int8_t *a, const int8_t *b, const int8_t *w, int32_t depth) {
#ifdef HAVE_VECTORS
    words_t sa = {s.a0, s.a1, s.a2, s.a3}, sb = {s.b0, s.b1, s.b2, s.b3};
    for (int32_t k = 0; k < depth; k += 4, w += 16) {
        const words_t weights = load_weights(w);
        sa = dot_words(load_inputs(a + k), weights, sa);
        sb = dot_words(load_inputs(b + k), weights, sb);
    }
    return (sums_t){sa[0], sa[1], sa[2], sa[3], sb[0], sb[1], sb[2], sb[3]};
#else
    return add_words(s, a, b, w, (rows_t){4, 8, 12}, 16, depth);
#endif
}

static inline sums_t add_rows_unsigned(sums_t s, const uint8_t *a, const uint8_t *b, const int8_t *w, rows_t rows,
                                       int32_t depth) {
    const int8_t *second = w + rows.second, *third = w + rows.third, *fourth = w + rows.fourth;
    for (int32_t k = 0; k < depth; k += 4) {
        const uword8_t xa = loadu8(a + k), xb = loadu8(b + k);
        const word8_t w0 = load8(w + k), w1 = load8(second + k), w2 = load8(third + k), w3 = load8(fourth + k);
        s.a0 = dotu8(xa, w0, s.a0);
        s.b0 = dotu8(xb, w0, s.b0);
        s.a1 = dotu8(xa, w1, s.a1);
        s.b1 = dotu8(xb, w1, s.b1);
        s.a2 = dotu8(xa, w2, s.a2);
        s.b2 = dotu8(xb, w2, s.b2);
        s.a3 = dotu8(xa, w3, s.a3);
        s.b3 = dotu8(xb, w3, s.b3);
    }
    return s;
}

/* Any depth: an odd last k is by itself. */
static inline sums_t add_rows_16(sums_t s, const int16_t *a, const int16_t *b, const int16_t *w, rows_t rows,
                                 int32_t depth) {
    const int16_t *second = w + rows.second, *third = w + rows.third, *fourth = w + rows.fourth;
    int32_t k = 0;
    for (; k < depth - 1; k += 2) {
        const word16_t xa = load16(a + k), xb = load16(b + k);
        const word16_t w0 = load16(w + k), w1 = load16(second + k), w2 = load16(third + k), w3 = load16(fourth + k);
        s.a0 = dot16(xa, w0, s.a0);
        s.b0 = dot16(xb, w0, s.b0);
        s.a1 = dot16(xa, w1, s.a1);
        s.b1 = dot16(xb, w1, s.b1);
        s.a2 = dot16(xa, w2, s.a2);
        s.b2 = dot16(xb, w2, s.b2);
        s.a3 = dot16(xa, w3, s.a3);
        s.b3 = dot16(xb, w3, s.b3);
    }
    if (k < depth) {
        s.a0 += a[k] * w[k];
        s.a1 += a[k] * second[k];
        s.a2 += a[k] * third[k];
        s.a3 += a[k] * fourth[k];
        s.b0 += b[k] * w[k];
        s.b1 += b[k] * second[k];
        s.b2 += b[k] * third[k];
        s.b3 += b[k] * fourth[k];
    }
    return s;
}

#endif
