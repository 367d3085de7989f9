#include "kernels.h"
#include "share.h"
#include "simd.h"

static int32_t largest_of(const int16_t *scores, int32_t count) {
    int32_t largest = scores[count - 1];
    word16_t pair = {INT16_MIN, INT16_MIN};
    for (int32_t k = 0; k < count - 1; k += 2) {
        pair = max16(pair, load16(scores + k));
    }
    const int32_t others = largest16(pair);
    return others > largest ? others : largest;
}

/* Weights overwrite the scores, in their order: weight k lies where score k / 2 was. Their sum is rounded rather than
 * each of them, so that many small ones do not all vanish. */
static uint32_t weigh(const int16_t *scores, uint8_t *weights, int32_t count, const uint16_t *exponentials) {
    const int32_t largest = largest_of(scores, count);
    uint32_t total = 128, sum = 0;
    for (int32_t k = 0; k < count; k++) {
        const int32_t below = largest - scores[k];
        const int32_t octaves = below >> 8;
        /* Entries have 16 bits: a shift by 16 leaves as little of them as a larger one. */
        total += (uint32_t)exponentials[below & 255] >> (octaves < 16 ? octaves : 16);
        weights[k] = (uint8_t)((total >> 8) - sum);
        sum = total >> 8;
    }
    return sum;
}

void softmax_kernel(const softmax_tile_t *tile, int core, int cores) {
    const share_t share = share_of(tile->rows, core, cores);
    for (int32_t row = share.first; row < share.end; row++) {
        int16_t *scores = tile->scores + row * tile->stride;
        uint8_t *weights = (uint8_t *)scores;
        tile->reciprocals[row] = tile->reciprocal / weigh(scores, weights, tile->key_count, tile->exponentials);
        for (int32_t k = tile->key_count; k & 3; k++) {
            weights[k] = 0;
        }
    }
}
