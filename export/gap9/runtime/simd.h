/* SIMD words of the cluster cores: four int8 or two int16 multiplied and added up at once.
 *
 * The build for the board defines GAP9, which selects the compiler's builtins (one instruction each). Elsewhere a word
 * is its elements, each in a register: they are extended once, when loaded, and used in several products. Both give
 * the same bits.
 */
#ifndef SIMD_H
#define SIMD_H

#include <stdint.h>

#ifdef GAP9

/* may_alias: a word is read from arrays of its elements. Words of rows whose width is a multiple of 4 bytes are
 * aligned; cores load others, too, in two accesses. */
typedef int8_t word8_t __attribute__((vector_size(4), may_alias));
typedef uint8_t uword8_t __attribute__((vector_size(4), may_alias));
typedef int16_t word16_t __attribute__((vector_size(4), may_alias));

static inline word8_t load8(const int8_t *from) { return *(const word8_t *)from; }
static inline uword8_t loadu8(const uint8_t *from) { return *(const uword8_t *)from; }
static inline word16_t load16(const int16_t *from) { return *(const word16_t *)from; }

static inline int32_t dot8(word8_t a, word8_t b, int32_t sum) { return __builtin_pulp_sdotsp4(a, b, sum); }
static inline int32_t dotu8(uword8_t a, word8_t b, int32_t sum) { return __builtin_pulp_sdotusp4(a, b, sum); }
static inline int32_t dot16(word16_t a, word16_t b, int32_t sum) { return __builtin_pulp_sdotsp2(a, b, sum); }

/* a0 + a1, added to sum. */
static inline int32_t add16(word16_t a, int32_t sum) { return __builtin_pulp_sdotsp2(a, (word16_t){1, 1}, sum); }

/* a0 * a0 + a1 * a1, which only unsigned numbers hold: up to 2^31. */
static inline uint32_t square16(word16_t a) { return (uint32_t)__builtin_pulp_dotsp2(a, a); }

static inline word16_t max16(word16_t a, word16_t b) { return __builtin_pulp_max2(a, b); }
static inline int32_t largest16(word16_t a) { return a[0] > a[1] ? a[0] : a[1]; }

/* Saturation to -128..127, -512..511, -32768..32767. */
static inline int32_t clip8(int32_t value) { return __builtin_pulp_clip(value, -128, 127); }
static inline int32_t clip10(int32_t value) { return __builtin_pulp_clip(value, -512, 511); }
static inline int32_t clip16(int32_t value) { return __builtin_pulp_clip(value, -32768, 32767); }

/* Saturation to -limit - 1 .. limit. */
static inline int32_t clip_to(int32_t limit, int32_t value) { return __builtin_pulp_clip_r(value, limit); }

/* (a + b) / 2^shift, rounded to nearest and halves up; shift 1..31. */
static inline int32_t shift_rounding(int32_t a, int32_t b, int32_t shift) {
    return __builtin_pulp_addRN_r(a, b, (uint32_t)shift);
}

#else

typedef struct {
    int32_t a, b, c, d;
} word8_t;
typedef word8_t uword8_t;
typedef struct {
    int32_t a, b;
} word16_t;

static inline word8_t load8(const int8_t *from) { return (word8_t){from[0], from[1], from[2], from[3]}; }
static inline uword8_t loadu8(const uint8_t *from) { return (uword8_t){from[0], from[1], from[2], from[3]}; }
static inline word16_t load16(const int16_t *from) { return (word16_t){from[0], from[1]}; }

static inline int32_t dot8(word8_t x, word8_t y, int32_t sum) {
    return sum + x.a * y.a + x.b * y.b + x.c * y.c + x.d * y.d;
}

static inline int32_t dotu8(uword8_t x, word8_t y, int32_t sum) { return dot8(x, y, sum); }
static inline int32_t dot16(word16_t x, word16_t y, int32_t sum) { return sum + x.a * y.a + x.b * y.b; }

/* a + b, added to sum. */
static inline int32_t add16(word16_t x, int32_t sum) { return sum + x.a + x.b; }

/* a * a + b * b, which only unsigned numbers hold: up to 2^31. */
static inline uint32_t square16(word16_t x) { return (uint32_t)(x.a * x.a) + (uint32_t)(x.b * x.b); }

static inline word16_t max16(word16_t x, word16_t y) {
    return (word16_t){x.a > y.a ? x.a : y.a, x.b > y.b ? x.b : y.b};
}

static inline int32_t largest16(word16_t x) { return x.a > x.b ? x.a : x.b; }

/* Saturation to -128..127, -512..511, -32768..32767. */
static inline int32_t clip8(int32_t value) { return value < -128 ? -128 : value > 127 ? 127 : value; }
static inline int32_t clip10(int32_t value) { return value < -512 ? -512 : value > 511 ? 511 : value; }
static inline int32_t clip16(int32_t value) { return value < -32768 ? -32768 : value > 32767 ? 32767 : value; }

/* Saturation to -limit - 1 .. limit. */
static inline int32_t clip_to(int32_t limit, int32_t value) {
    return value < -limit - 1 ? -limit - 1 : value > limit ? limit : value;
}

/* (a + b) / 2^shift, rounded to nearest and halves up; shift 1..31. */
static inline int32_t shift_rounding(int32_t a, int32_t b, int32_t shift) {
    return (a + b + (1 << (shift - 1))) >> shift;
}

#endif

#endif
