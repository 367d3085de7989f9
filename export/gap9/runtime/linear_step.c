#include <stddef.h>

#include "kernels.h"
#include "memories.h"
#include "steps.h"
#include "tiles.h"
#include "transfer.h"

typedef struct {
    transfer_t input[2], rotation[2], output[2], weights[2], channels[2], table;
} transfers_t;

/* Blocks of outputs outside, tiles of rows inside: weights are loaded once, rows once for every block. */
typedef struct {
    int32_t slot, row, rows;
    int32_t block, block_slot, first_output, outputs;
} place_t;

static place_t place(const linear_step_t *step, int32_t tile) {
    const int32_t row_tiles = tile_count(step->rows, step->row_block);
    const int32_t block = tile / row_tiles;
    const int32_t row = (tile - block * row_tiles) * step->row_block;
    const int32_t first_output = block * step->output_block;
    return (place_t){
        .slot = tile & 1,
        .row = row,
        .rows = tile_size(step->rows, step->row_block, row),
        .block = block,
        .block_slot = block & 1,
        .first_output = first_output,
        .outputs = tile_size(step->outputs, step->output_block, first_output),
    };
}

static void load_weights(const linear_step_t *step, transfers_t *moving, place_t place) {
    const int32_t slot = place.block_slot, channel_size = (int32_t)sizeof(channel_t);
    transfer_load(&moving->weights[slot], step->l1.weights[slot],
                  step->weights + (uint32_t)(place.first_output * step->depth), place.outputs * step->depth);
    transfer_load(&moving->channels[slot], step->l1.channels[slot],
                  step->channels + (uint32_t)(place.first_output * channel_size), place.outputs * channel_size);
}

/* Offset in L2 of the first element of a tile of the output. */
static uint32_t output_at(const linear_step_t *step, place_t place) {
    const int32_t element_size = step->residual ? (int32_t)sizeof(int16_t) : 1;
    int32_t offset = 0;
    switch (step->layout) {
    case ROWS:
        offset = place.row * step->output_stride + place.first_output * element_size;
        break;
    case HEADS:
        offset = (place.block * step->rows + place.row) * place.outputs;
        break;
    case TRANSPOSED:
        offset = place.first_output * step->output_stride + place.row;
        break;
    }
    return step->output + (uint32_t)offset;
}

static void load(const linear_step_t *step, transfers_t *moving, place_t place) {
    const int32_t slot = place.slot;
    if (place.row == 0) {
        load_weights(step, moving, place);
    }
    transfer_load(&moving->input[slot], step->l1.input[slot], step->input + (uint32_t)(place.row * step->depth),
                  place.rows * step->depth);
    if (step->rotation != NOWHERE) {
        const int32_t row_size = place.outputs * (int32_t)sizeof(int16_t);
        transfer_load(&moving->rotation[slot], step->l1.rotation[slot],
                      step->rotation + (uint32_t)(place.row * row_size), place.rows * row_size);
    }
    if (step->residual) {
        transfer_wait(&moving->output[slot]); /* the tile before the last is stored from here */
        transfer_load_rows(&moving->output[slot], step->l1.output[slot], output_at(step, place), place.rows,
                           place.outputs * (int32_t)sizeof(int16_t), step->output_stride);
    }
}

static void wait(transfers_t *moving, place_t place) {
    transfer_wait(&moving->weights[place.block_slot]);
    transfer_wait(&moving->channels[place.block_slot]);
    transfer_wait(&moving->table);
    transfer_wait(&moving->input[place.slot]);
    transfer_wait(&moving->rotation[place.slot]);
    transfer_wait(&moving->output[place.slot]); /* residual stream loaded, or tile before the last stored */
}

static void linear_on_core(void *tile) {
    linear_kernel(tile, (int)pi_core_id(), CORES);
}

static void rotary_on_core(void *tile) {
    rotary_kernel(tile, (int)pi_core_id(), CORES);
}

static void compute(const linear_step_t *step, place_t place) {
    const int32_t transposed = step->layout == TRANSPOSED;
    void *output = in_l1(step->l1.output[place.slot]);
    linear_tile_t work = {
        .input = in_l1(step->l1.input[place.slot]),
        .weights = in_l1(step->l1.weights[place.block_slot]),
        .channels = in_l1(step->l1.channels[place.block_slot]),
        .table = step->table == NOWHERE ? NULL : in_l1(step->l1.table),
        .output = step->residual ? NULL : output,
        .residual = step->residual ? output : NULL,
        .rows = place.rows,
        .depth = step->depth,
        .outputs = place.outputs,
        .row_stride = transposed ? 1 : place.outputs,
        .output_stride = transposed ? place.rows : 1,
    };
    pi_cl_team_fork(CORES, linear_on_core, &work);
    if (step->rotation != NOWHERE) {
        rotary_tile_t rotary = {
            .states = output,
            .rotation = in_l1(step->l1.rotation[place.slot]),
            .rows = place.rows,
            .half = place.outputs / 2,
        };
        pi_cl_team_fork(CORES, rotary_on_core, &rotary);
    }
}

static void store(const linear_step_t *step, transfers_t *moving, place_t place) {
    transfer_t *output = &moving->output[place.slot];
    const uint32_t l1 = step->l1.output[place.slot], l2 = output_at(step, place);
    switch (step->layout) {
    case ROWS:
        transfer_store_rows(output, l1, l2, place.rows,
                            step->residual ? place.outputs * (int32_t)sizeof(int16_t) : place.outputs,
                            step->output_stride);
        break;
    case HEADS:
        transfer_store(output, l1, l2, place.rows * place.outputs);
        break;
    case TRANSPOSED:
        transfer_store_rows(output, l1, l2, place.outputs, place.rows, step->output_stride);
        break;
    }
}

void run_linear(const void *argument) {
    const linear_step_t *step = argument;
    const int32_t tiles = tile_count(step->rows, step->row_block) * tile_count(step->outputs, step->output_block);
    transfers_t moving = {0};
    if (step->table != NOWHERE) {
        transfer_load(&moving.table, step->l1.table, step->table, TABLE_ENTRIES);
    }
    load(step, &moving, place(step, 0));
    for (int32_t tile = 0; tile < tiles; tile++) {
        const place_t here = place(step, tile);
        if (tile + 1 < tiles) {
            load(step, &moving, place(step, tile + 1));
        }
        wait(&moving, here);
        compute(step, here);
        store(step, &moving, here);
    }
    transfer_wait(&moving.output[0]);
    transfer_wait(&moving.output[1]);
}
