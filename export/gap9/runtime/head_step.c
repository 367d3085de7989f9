#include "kernels.h"
#include "memories.h"
#include "steps.h"
#include "tiles.h"
#include "transfer.h"

typedef struct {
    transfer_t input, weights[2], bias[2], output[2];
} transfers_t;

static void load(const head_step_t *step, transfers_t *moving, int32_t block) {
    const int32_t first = block * step->output_block, slot = block & 1, word = (int32_t)sizeof(int32_t);
    const int32_t outputs = tile_size(step->outputs, step->output_block, first);
    transfer_load(&moving->weights[slot], step->l1.weights[slot], step->weights + (uint32_t)(first * step->depth),
                  outputs * step->depth);
    transfer_load(&moving->bias[slot], step->l1.bias[slot], step->bias + (uint32_t)(first * word), outputs * word);
}

static void on_core(void *tile) {
    head_kernel(tile, (int)pi_core_id(), CORES);
}

static void compute(const head_step_t *step, int32_t block) {
    const int32_t slot = block & 1;
    head_tile_t work = {
        .input = in_l1(step->l1.input),
        .weights = in_l1(step->l1.weights[slot]),
        .bias = in_l1(step->l1.bias[slot]),
        .output = in_l1(step->l1.output[slot]),
        .rows = step->rows,
        .depth = step->depth,
        .outputs = tile_size(step->outputs, step->output_block, block * step->output_block),
    };
    pi_cl_team_fork(CORES, on_core, &work);
}

static void store(const head_step_t *step, transfers_t *moving, int32_t block) {
    const int32_t first = block * step->output_block, slot = block & 1, word = (int32_t)sizeof(int32_t);
    transfer_store_rows(&moving->output[slot], step->l1.output[slot], step->output + (uint32_t)(first * word),
                        step->rows, tile_size(step->outputs, step->output_block, first) * word, step->outputs * word);
}

void run_head(const void *argument) {
    const head_step_t *step = argument;
    const int32_t blocks = tile_count(step->outputs, step->output_block);
    transfers_t moving = {0};
    transfer_load(&moving.input, step->l1.input, step->input, step->rows * step->depth * (int32_t)sizeof(int16_t));
    load(step, &moving, 0);
    transfer_wait(&moving.input);
    for (int32_t block = 0; block < blocks; block++) {
        if (block + 1 < blocks) {
            load(step, &moving, block + 1);
        }
        transfer_wait(&moving.weights[block & 1]);
        transfer_wait(&moving.bias[block & 1]);
        transfer_wait(&moving.output[block & 1]); /* stored two blocks ago */
        compute(step, block);
        store(step, &moving, block);
    }
    transfer_wait(&moving.output[0]);
    transfer_wait(&moving.output[1]);
}
