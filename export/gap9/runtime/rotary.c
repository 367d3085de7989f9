#include "kernels.h"
#include "share.h"
#include "simd.h"

void rotary_kernel(const rotary_tile_t *tile, int core, int cores) {
    const int32_t half = tile->half;
    const share_t share = share_of(tile->rows, core, cores);
    for (int32_t row = share.first; row < share.end; row++) {
        int8_t *first = tile->states + row * 2 * half, *second = first + half;
        const int16_t *cosines = tile->rotation + row * 2 * half, *sines = cosines + half;
        for (int32_t j = 0; j < half; j++) {
            const int32_t a = first[j], b = second[j], cosine = cosines[j], sine = sines[j];
            first[j] = (int8_t)clip8(shift_rounding(a * cosine, -b * sine, 15));
            second[j] = (int8_t)clip8(shift_rounding(b * cosine, a * sine, 15));
        }
    }
}
