#include "fixed_point.h"
#include "kernels.h"
#include "share.h"

/* One column: of three neighbours, two are still in registers from the row before. */
static void convolve(const depthwise_tile_t *tile, int32_t column) {
    const int32_t width = tile->width;
    const channel_t channel = tile->channels[column];
    const int8_t *weights = tile->weights + 3 * column, *input = tile->input + column;
    const int32_t w0 = weights[0], w1 = weights[1], w2 = weights[2];
    int16_t *output = tile->output + column;
    int32_t above = tile->padding, here = *input;
    for (int32_t row = 0; row < tile->rows; row++, input += width, output += width) {
        const int32_t below = row + 1 < tile->rows ? input[width] : tile->padding;
        const int32_t sum = channel.bias + above * w0 + here * w1 + below * w2;
        *output = tile->table[table_index(requant(sum, channel.multiplier, channel.shift))];
        above = here;
        here = below;
    }
}

void depthwise_kernel(const depthwise_tile_t *tile, int core, int cores) {
    const share_t share = share_of(tile->width, core, cores);
    for (int32_t column = share.first; column < share.end; column++) {
        convolve(tile, column);
    }
}
