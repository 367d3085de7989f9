#include "kernels.h"
#include "memories.h"
#include "steps.h"
#include "tiles.h"
#include "transfer.h"

typedef struct {
    transfer_t input[2], weights, bias, output[2];
} transfers_t;

/* Where the output is (patches, channels * width), the rows of a tile belong to one channel, so that they are equally
 * far apart in the output: the last tile of every channel may be a smaller one. */
typedef struct {
    int32_t channels, rows; /* of each channel */
    int32_t tiles;          /* of each channel */
} split_t;

typedef struct {
    int32_t slot, channel, row, rows; /* row within the channel */
} place_t;

static split_t split(const layer_norm_step_t *step) {
    const int32_t rows = step->patches > 0 ? step->patches : step->rows;
    return (split_t){.channels = step->rows / rows, .rows = rows, .tiles = tile_count(rows, step->row_block)};
}

static place_t place(const layer_norm_step_t *step, split_t split, int32_t tile) {
    const int32_t channel = tile / split.tiles;
    const int32_t row = (tile - channel * split.tiles) * step->row_block;
    return (place_t){
        .slot = tile & 1,
        .channel = channel,
        .row = row,
        .rows = tile_size(split.rows, step->row_block, row),
    };
}

static void load(const layer_norm_step_t *step, transfers_t *moving, split_t split, place_t place) {
    const int32_t row_size = step->width * (int32_t)sizeof(int16_t);
    const int32_t row = place.channel * split.rows + place.row;
    transfer_load(&moving->input[place.slot], step->l1.input[place.slot], step->input + (uint32_t)(row * row_size),
                  place.rows * row_size);
}

static void on_core(void *tile) {
    layer_norm_kernel(tile, (int)pi_core_id(), CORES);
}

static void compute(const layer_norm_step_t *step, place_t place) {
    layer_norm_tile_t work = {
        .input = in_l1(step->l1.input[place.slot]),
        .weights = in_l1(step->l1.weights),
        .bias = in_l1(step->l1.bias),
        .output = in_l1(step->l1.output[place.slot]),
        .epsilon = step->epsilon,
        .rows = place.rows,
        .width = step->width,
        .shift = step->shift,
    };
    pi_cl_team_fork(CORES, on_core, &work);
}

static void store(const layer_norm_step_t *step, transfers_t *moving, split_t split, place_t place) {
    const int32_t stride = split.channels * step->width;
    transfer_store_rows(&moving->output[place.slot], step->l1.output[place.slot],
                        step->output + (uint32_t)(place.row * stride + place.channel * step->width), place.rows,
                        step->width, stride);
}

void run_layer_norm(const void *argument) {
    const layer_norm_step_t *step = argument;
    const split_t parts = split(step);
    const int32_t tiles = parts.channels * parts.tiles;
    transfers_t moving = {0};
    transfer_load(&moving.weights, step->l1.weights, step->weights, step->width * (int32_t)sizeof(int16_t));
    transfer_load(&moving.bias, step->l1.bias, step->bias, step->width * (int32_t)sizeof(int32_t));
    load(step, &moving, parts, place(step, parts, 0));
    transfer_wait(&moving.weights);
    transfer_wait(&moving.bias);
    for (int32_t tile = 0; tile < tiles; tile++) {
        const place_t here = place(step, parts, tile);
        if (tile + 1 < tiles) {
            load(step, &moving, parts, place(step, parts, tile + 1));
        }
        transfer_wait(&moving.input[here.slot]);
        transfer_wait(&moving.output[here.slot]); /* stored two tiles ago */
        compute(step, here);
        store(step, &moving, parts, here);
    }
    transfer_wait(&moving.output[0]);
    transfer_wait(&moving.output[1]);
}
