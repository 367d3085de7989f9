#include "kernels.h"
#include "memories.h"
#include "steps.h"
#include "tiles.h"
#include "transfer.h"

#define INT8_LIMIT 127 /* a larger limit makes outputs of 16 bits */

typedef struct {
    transfer_t input[2], output;
} transfers_t;

typedef struct {
    int32_t slot, outer, row, rows; /* row within the mean */
} place_t;

static place_t place(const pool_step_t *step, int32_t tile) {
    const int32_t tiles = tile_count(step->count, step->row_block), outer = tile / tiles;
    const int32_t row = (tile - outer * tiles) * step->row_block;
    return (place_t){
        .slot = tile & 1,
        .outer = outer,
        .row = row,
        .rows = tile_size(step->count, step->row_block, row),
    };
}

static void load(const pool_step_t *step, transfers_t *moving, place_t place) {
    const int32_t row = place.outer * step->count + place.row;
    transfer_load(&moving->input[place.slot], step->l1.input[place.slot],
                  step->input + (uint32_t)(row * step->inner), place.rows * step->inner);
}

static void on_core(void *tile) {
    pool_kernel(tile, (int)pi_core_id(), CORES);
}

static void compute(const pool_step_t *step, place_t place) {
    pool_tile_t work = {
        .input = in_l1(step->l1.input[place.slot]),
        .sums = in_l1(step->l1.sums),
        .output = in_l1(step->l1.output),
        .rows = place.rows,
        .width = step->inner,
        .multiplier = step->multiplier,
        .shift = step->shift,
        .limit = step->limit,
        .first = place.row == 0,
        .last = place.row + place.rows == step->count,
    };
    pi_cl_team_fork(CORES, on_core, &work);
}

static void store(const pool_step_t *step, transfers_t *moving, place_t place) {
    const int32_t row_size = step->inner * (int32_t)(step->limit > INT8_LIMIT ? sizeof(int16_t) : sizeof(int8_t));
    transfer_store(&moving->output, step->l1.output, step->output + (uint32_t)(place.outer * row_size), row_size);
}

void run_pool(const void *argument) {
    const pool_step_t *step = argument;
    const int32_t tiles = step->outer * tile_count(step->count, step->row_block);
    transfers_t moving = {0};
    load(step, &moving, place(step, 0));
    for (int32_t tile = 0; tile < tiles; tile++) {
        const place_t here = place(step, tile);
        if (tile + 1 < tiles) {
            load(step, &moving, place(step, tile + 1));
        }
        transfer_wait(&moving.input[here.slot]);
        const int32_t complete = here.row + here.rows == step->count;
        if (complete) {
            transfer_wait(&moving.output); /* the mean before this one */
        }
        compute(step, here);
        if (complete) {
            store(step, &moving, here);
        }
    }
    transfer_wait(&moving.output);
}
