#include "kernels.h"
#include "share.h"

static int32_t dot(const int16_t *x, const int8_t *w, int32_t depth, int32_t sum) {
    for (int32_t k = 0; k < depth; k++) {
        sum += x[k] * w[k];
    }
    return sum;
}

/* One item is one logit: of a single row there are not many, but they are long. */
void head_kernel(const head_tile_t *tile, int core, int cores) {
    const share_t share = share_of(tile->rows * tile->outputs, core, cores);
    if (share.first == share.end) {
        return;
    }
    int32_t row = share.first / tile->outputs;
    int32_t output = share.first - row * tile->outputs;
    for (int32_t item = share.first; item < share.end; item++) {
        const int8_t *weights = tile->weights + output * tile->depth;
        tile->output[item] = dot(tile->input + row * tile->depth, weights, tile->depth, tile->bias[output]);
        if (++output == tile->outputs) {
            output = 0;
            row++;
        }
    }
}
