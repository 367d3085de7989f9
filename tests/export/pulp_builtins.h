/* The builtins of the cluster's compiler that simd.h uses, emulated from their published descriptions, so that its half
 * for the board compiles and runs here. Typed as they are there. */
#include <stdint.h>

typedef int8_t v4s __attribute__((vector_size(4)));
typedef uint8_t v4u __attribute__((vector_size(4)));
typedef int16_t v2s __attribute__((vector_size(4)));

static inline int __builtin_pulp_sdotsp4(v4s x, v4s y, int z) {
    return z + x[0] * y[0] + x[1] * y[1] + x[2] * y[2] + x[3] * y[3];
}

static inline int __builtin_pulp_sdotusp4(v4u x, v4s y, int z) {
    return z + x[0] * y[0] + x[1] * y[1] + x[2] * y[2] + x[3] * y[3];
}

static inline int __builtin_pulp_sdotsp2(v2s x, v2s y, int z) { return z + x[0] * y[0] + x[1] * y[1]; }

/* Two squares of -32768 wrap around in the 32 bits of the result. */
static inline int __builtin_pulp_dotsp2(v2s x, v2s y) {
    return (int)((uint32_t)(x[0] * y[0]) + (uint32_t)(x[1] * y[1]));
}

static inline v2s __builtin_pulp_max2(v2s x, v2s y) {
    return (v2s){x[0] > y[0] ? x[0] : y[0], x[1] > y[1] ? x[1] : y[1]};
}

static inline int __builtin_pulp_clip(int x, int low, int high) { return x < low ? low : x > high ? high : x; }
static inline int __builtin_pulp_clip_r(int x, int bound) { return x < -bound - 1 ? -bound - 1 : x > bound ? bound : x; }

static inline int __builtin_pulp_addRN_r(int x, int y, unsigned int n) { return (x + y + (1 << (n - 1))) >> n; }
