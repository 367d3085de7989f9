#include "kernels.h"
#include "memories.h"
#include "steps.h"
#include "tiles.h"
#include "transfer.h"

typedef struct {
    transfer_t input[2], weights, channels, output[2];
} transfers_t;

static void load(const patch_embedding_step_t *step, transfers_t *moving, int32_t tile) {
    const int32_t row = tile * step->row_block, slot = tile & 1;
    const int32_t row_size = step->depth * (int32_t)sizeof(int16_t);
    transfer_load(&moving->input[slot], step->l1.input[slot], step->input + (uint32_t)(row * row_size),
                  tile_size(step->rows, step->row_block, row) * row_size);
}

static void on_core(void *tile) {
    patch_embedding_kernel(tile, (int)pi_core_id(), CORES);
}

static void compute(const patch_embedding_step_t *step, int32_t tile) {
    const int32_t slot = tile & 1;
    patch_embedding_tile_t work = {
        .input = in_l1(step->l1.input[slot]),
        .weights = in_l1(step->l1.weights),
        .channels = in_l1(step->l1.channels),
        .output = in_l1(step->l1.output[slot]),
        .rows = tile_size(step->rows, step->row_block, tile * step->row_block),
        .depth = step->depth,
        .outputs = step->outputs,
    };
    pi_cl_team_fork(CORES, on_core, &work);
}

static void store(const patch_embedding_step_t *step, transfers_t *moving, int32_t tile) {
    const int32_t row = tile * step->row_block, slot = tile & 1;
    const int32_t row_size = step->outputs * (int32_t)sizeof(int16_t);
    transfer_store(&moving->output[slot], step->l1.output[slot], step->output + (uint32_t)(row * row_size),
                   tile_size(step->rows, step->row_block, row) * row_size);
}

void run_patch_embedding(const void *argument) {
    const patch_embedding_step_t *step = argument;
    const int32_t tiles = tile_count(step->rows, step->row_block);
    transfers_t moving = {0};
    transfer_load(&moving.weights, step->l1.weights, step->weights,
                  step->outputs * step->depth * (int32_t)sizeof(int16_t));
    transfer_load(&moving.channels, step->l1.channels, step->channels, step->outputs * (int32_t)sizeof(channel_t));
    load(step, &moving, 0);
    transfer_wait(&moving.weights);
    transfer_wait(&moving.channels);
    for (int32_t tile = 0; tile < tiles; tile++) {
        if (tile + 1 < tiles) {
            load(step, &moving, tile + 1);
        }
        transfer_wait(&moving.input[tile & 1]);
        transfer_wait(&moving.output[tile & 1]); /* stored two tiles ago */
        compute(step, tile);
        store(step, &moving, tile);
    }
    transfer_wait(&moving.output[0]);
    transfer_wait(&moving.output[1]);
}
