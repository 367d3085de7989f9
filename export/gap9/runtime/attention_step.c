#include "kernels.h"
#include "memories.h"
#include "steps.h"
#include "tiles.h"
#include "transfer.h"

#define EXPONENTIALS 256

typedef struct {
    transfer_t query[2], block[2], output[2], exponentials;
} transfers_t;

/* For every head, for every tile of queries: all blocks of keys, whose scores stay in L1, then all blocks of values. */
typedef struct {
    int32_t slot;                  /* of the block */
    int32_t head, row, rows;       /* queries */
    int32_t query_slot;            /* and of their output */
    int32_t key, keys;             /* of the block */
    int32_t values;                /* whether the block holds values, which are padded to a multiple of 4 */
    int32_t first_keys, last_keys; /* whether these are the first, the last */
} place_t;

static int32_t blocks_per_tile(const attention_step_t *step) {
    return 2 * tile_count(step->tokens, step->key_block);
}

static place_t place(const attention_step_t *step, int32_t number) {
    const int32_t blocks = blocks_per_tile(step), tile = number / blocks, block = number - tile * blocks;
    const int32_t head_tiles = tile_count(step->tokens, step->row_block), head = tile / head_tiles;
    const int32_t row = (tile - head * head_tiles) * step->row_block;
    const int32_t values = block >= blocks / 2;
    const int32_t key = (values ? block - blocks / 2 : block) * step->key_block;
    return (place_t){
        .slot = number & 1,
        .head = head,
        .row = row,
        .rows = tile_size(step->tokens, step->row_block, row),
        .query_slot = tile & 1,
        .key = key,
        .keys = tile_size(values ? step->value_stride : step->tokens, step->key_block, key),
        .values = values,
        .first_keys = key == 0,
        .last_keys = key + step->key_block >= step->tokens,
    };
}

static void load(const attention_step_t *step, transfers_t *moving, place_t place) {
    const int32_t size = step->head_size;
    transfer_t *block = &moving->block[place.slot];
    const uint32_t l1 = step->l1.block[place.slot];
    if (place.values) {
        const int32_t first = place.head * size * step->value_stride + place.key;
        transfer_load_rows(block, l1, step->values + (uint32_t)first, size, place.keys, step->value_stride);
        return;
    }
    if (place.first_keys) {
        const int32_t query = (place.head * step->tokens + place.row) * size;
        transfer_load(&moving->query[place.query_slot], step->l1.query[place.query_slot],
                      step->queries_keys + (uint32_t)query, place.rows * size);
    }
    const int32_t key = ((step->heads + place.head) * step->tokens + place.key) * size;
    transfer_load(block, l1, step->queries_keys + (uint32_t)key, place.keys * size);
}

static void scores_on_core(void *tile) {
    scores_kernel(tile, (int)pi_core_id(), CORES);
}

static void softmax_on_core(void *tile) {
    softmax_kernel(tile, (int)pi_core_id(), CORES);
}

static void values_on_core(void *tile) {
    values_kernel(tile, (int)pi_core_id(), CORES);
}

static void compute_scores(const attention_step_t *step, place_t place) {
    int16_t *scores = in_l1(step->l1.scores);
    scores_tile_t work = {
        .queries = in_l1(step->l1.query[place.query_slot]),
        .keys = in_l1(step->l1.block[place.slot]),
        .scores = scores + place.key,
        .rows = place.rows,
        .key_count = place.keys,
        .depth = step->head_size,
        .stride = step->value_stride,
        .multiplier = step->score_multiplier,
        .shift = step->score_shift,
    };
    pi_cl_team_fork(CORES, scores_on_core, &work);
}

static void compute_softmax(const attention_step_t *step, place_t place) {
    softmax_tile_t work = {
        .scores = in_l1(step->l1.scores),
        .reciprocals = in_l1(step->l1.reciprocals),
        .exponentials = in_l1(step->l1.exponentials),
        .rows = place.rows,
        .key_count = step->tokens,
        .stride = step->value_stride,
        .reciprocal = step->reciprocal,
    };
    pi_cl_team_fork(CORES, softmax_on_core, &work);
}

static void compute_values(const attention_step_t *step, place_t place) {
    const uint8_t *weights = in_l1(step->l1.scores);
    values_tile_t work = {
        .weights = weights + place.key,
        .values = in_l1(step->l1.block[place.slot]),
        .reciprocals = in_l1(step->l1.reciprocals),
        .sums = in_l1(step->l1.sums),
        .output = in_l1(step->l1.output[place.query_slot]),
        .rows = place.rows,
        .key_count = place.keys,
        .depth = step->head_size,
        .stride = step->value_stride * (int32_t)sizeof(int16_t),
        .shift = step->shift,
        .first = place.first_keys,
        .last = place.last_keys,
    };
    pi_cl_team_fork(CORES, values_on_core, &work);
}

static void store(const attention_step_t *step, transfers_t *moving, place_t place) {
    const int32_t stride = step->heads * step->head_size;
    transfer_store_rows(&moving->output[place.query_slot], step->l1.output[place.query_slot],
                        step->output + (uint32_t)(place.row * stride + place.head * step->head_size), place.rows,
                        step->head_size, stride);
}

static void with_keys(const attention_step_t *step, transfers_t *moving, place_t place) {
    transfer_wait(&moving->query[place.query_slot]);
    compute_scores(step, place);
    if (place.last_keys) {
        compute_softmax(step, place);
    }
}

static void with_values(const attention_step_t *step, transfers_t *moving, place_t place) {
    if (!place.last_keys) {
        compute_values(step, place);
        return;
    }
    transfer_wait(&moving->output[place.query_slot]); /* stored two tiles ago */
    compute_values(step, place);
    store(step, moving, place);
}

void run_attention(const void *argument) {
    const attention_step_t *step = argument;
    const int32_t tiles = step->heads * tile_count(step->tokens, step->row_block);
    const int32_t blocks = tiles * blocks_per_tile(step);
    transfers_t moving = {0};
    transfer_load(&moving.exponentials, step->l1.exponentials, step->exponentials,
                  EXPONENTIALS * (int32_t)sizeof(uint16_t));
    load(step, &moving, place(step, 0));
    transfer_wait(&moving.exponentials);
    for (int32_t block = 0; block < blocks; block++) {
        const place_t here = place(step, block);
        if (block + 1 < blocks) {
            load(step, &moving, place(step, block + 1));
        }
        transfer_wait(&moving.block[here.slot]);
        if (here.values) {
            with_values(step, &moving, here);
        } else {
            with_keys(step, &moving, here);
        }
    }
    transfer_wait(&moving.output[0]);
    transfer_wait(&moving.output[1]);
}
