#include "fixed_point.h"
#include "kernels.h"
#include "share.h"

static int32_t sum_of_column(const int8_t *input, int32_t rows, int32_t width) {
    int32_t sum = 0;
    for (int32_t row = 0; row < rows; row++, input += width) {
        sum += *input;
    }
    return sum;
}

static void finish(const pool_tile_t *tile, int32_t column, int32_t sum) {
    const int32_t mean = clamp(requant(sum, tile->multiplier, tile->shift), -tile->limit, tile->limit);
    if (tile->limit > 127) {
        ((int16_t *)tile->output)[column] = (int16_t)mean;
    } else {
        ((int8_t *)tile->output)[column] = (int8_t)mean;
    }
}

void pool_kernel(const pool_tile_t *tile, int core, int cores) {
    const share_t share = share_of(tile->width, core, cores);
    for (int32_t column = share.first; column < share.end; column++) {
        const int32_t before = tile->first ? 0 : tile->sums[column];
        const int32_t sum = before + sum_of_column(tile->input + column, tile->rows, tile->width);
        if (tile->last) {
            finish(tile, column, sum);
        } else {
            tile->sums[column] = sum;
        }
    }
}
