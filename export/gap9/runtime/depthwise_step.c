#include "kernels.h"
#include "memories.h"
#include "steps.h"
#include "tiles.h"
#include "transfer.h"

#define TAPS 3

static void on_core(void *tile) {
    depthwise_kernel(tile, (int)pi_core_id(), CORES);
}

/* Some patches by some channels: all of it fits into L1 at once. */
void run_depthwise(const void *argument) {
    const depthwise_step_t *step = argument;
    const int32_t elements = step->rows * step->width;
    transfer_t input = {0}, weights = {0}, channels = {0}, table = {0}, output = {0};
    transfer_load(&input, step->l1.input, step->input, elements);
    transfer_load(&weights, step->l1.weights, step->weights, step->width * TAPS);
    transfer_load(&channels, step->l1.channels, step->channels, step->width * (int32_t)sizeof(channel_t));
    transfer_load(&table, step->l1.table, step->table, TABLE_ENTRIES * (int32_t)sizeof(int16_t));
    transfer_wait(&input);
    transfer_wait(&weights);
    transfer_wait(&channels);
    transfer_wait(&table);
    depthwise_tile_t work = {
        .input = in_l1(step->l1.input),
        .weights = in_l1(step->l1.weights),
        .channels = in_l1(step->l1.channels),
        .table = in_l1(step->l1.table),
        .output = in_l1(step->l1.output),
        .rows = step->rows,
        .width = step->width,
        .padding = step->padding,
    };
    pi_cl_team_fork(CORES, on_core, &work);
    transfer_store(&output, step->l1.output, step->output, elements * (int32_t)sizeof(int16_t));
    transfer_wait(&output);
}
