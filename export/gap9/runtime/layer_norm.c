#include "fixed_point.h"
#include "kernels.h"
#include "share.h"
#include "simd.h"

/* Of a row: z of an element x is (multiply_high(scale * x - offset, reciprocal) + 1) >> 1. */
typedef struct {
    uint32_t scale, offset;
    int32_t reciprocal;
} normalizer_t;

static uint32_t square_root(uint32_t value) {
    uint32_t root = 0;
    for (uint32_t bit = 1u << 15; bit != 0; bit >>= 1) {
        const uint32_t larger = root | bit;
        if (larger * larger <= value) {
            root = larger;
        }
    }
    return root;
}

static int32_t bit_length(uint64_t value) {
    const uint32_t high = (uint32_t)(value >> 32);
    return high != 0 ? 64 - __builtin_clz(high) : 32 - __builtin_clz((uint32_t)value);
}

static normalizer_t normalizer_of(uint64_t variance, uint32_t width, uint32_t sum) {
    const int32_t exponent = ((bit_length(variance) + 1) & ~1) - 32;
    const uint32_t normal = (uint32_t)(exponent < 0 ? variance << -exponent : variance >> exponent);
    const uint32_t reciprocal = UINT32_MAX / square_root(normal); /* below 2^17 */
    /* z = (c * reciprocal + (1 << (k - 1))) >> k. The factors are raised by 33 - k bits together, so that the upper
     * word of their product is twice z, but for the rounding. The reciprocal has room for 14 of these bits. Where more
     * are left, k < 19, c has room for them: |c| < 2^(k + 1), as it is at most sqrt(width * variance). */
    const int32_t k = 20 + exponent / 2;
    const int32_t raised = 33 - k < 14 ? 33 - k : 14;
    const int32_t rest = 33 - k - raised;
    return (normalizer_t){width << rest, sum << rest, (int32_t)(reciprocal << raised)};
}

static normalizer_t measure(const int16_t *x, int32_t width, int64_t epsilon) {
    int32_t sum = 0;
    uint64_t squares = 0;
    int32_t i = 0;
    for (; i < width - 1; i += 2) {
        const word16_t pair = load16(x + i);
        sum = add16(pair, sum);
        squares += square16(pair);
    }
    if (i < width) {
        sum += x[i];
        squares += (uint32_t)(x[i] * x[i]);
    }
    const uint64_t variance = (uint64_t)width * squares - (uint64_t)((int64_t)sum * sum) + (uint64_t)epsilon;
    return normalizer_of(variance, (uint32_t)width, (uint32_t)sum);
}

void layer_norm_kernel(const layer_norm_tile_t *tile, int core, int cores) {
    const int32_t width = tile->width, shift = tile->shift;
    const int16_t *weights = tile->weights;
    const int32_t *bias = tile->bias;
    const share_t share = share_of(tile->rows, core, cores);
    for (int32_t row = share.first; row < share.end; row++) {
        const int16_t *x = tile->input + row * width;
        int8_t *y = tile->output + row * width;
        const normalizer_t normalizer = measure(x, width, tile->epsilon);
        for (int32_t i = 0; i < width; i++) {
            /* Unsigned, as scale * x alone may leave 32 bits where the difference does not. */
            const int32_t element = x[i];
            const int32_t c = (int32_t)(normalizer.scale * (uint32_t)element - normalizer.offset);
            const int32_t z = shift_rounding(multiply_high(c, normalizer.reciprocal), 0, 1);
            y[i] = (int8_t)clip8(shift_rounding(z * weights[i], bias[i], shift));
        }
    }
}
