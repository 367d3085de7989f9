/* Kernels: what the cores of the cluster do with one tile in L1.
 *
 * Every kernel is called by all cores at once with its number, takes its share of the tile and writes nothing that
 * another core reads before all are done. Arithmetic: docs/gap9-arithmetic.md.
 */
#ifndef KERNELS_H
#define KERNELS_H

#include <stdint.h>

/* What turns the sum of one output into its value. */
typedef struct {
    int32_t bias;
    int32_t multiplier;
    int32_t shift;
} channel_t;

/* int16 (rows, depth) x int16 (outputs, depth) -> int16 (rows, outputs); outputs is a multiple of 4. */
typedef struct {
    const int16_t *input;
    const int16_t *weights; /* values of int8, stored in 16 bits for the 2-way product */
    const channel_t *channels;
    int16_t *output;
    int32_t rows, depth, outputs;
} patch_embedding_tile_t;

void patch_embedding_kernel(const patch_embedding_tile_t *tile, int core, int cores);

/* int16 (rows, width) -> int8 (rows, width). */
typedef struct {
    const int16_t *input;
    const int16_t *weights;
    const int32_t *bias;
    int8_t *output;
    int64_t epsilon;
    int32_t rows, width, shift;
} layer_norm_tile_t;

void layer_norm_kernel(const layer_norm_tile_t *tile, int core, int cores);

/* int8 (rows, depth) x int8 (outputs, depth); depth and outputs are multiples of 4.
 * Weights are packed: for every group of four outputs, for every four k, the four k of each of the four outputs.
 * One of output and residual is set. */
typedef struct {
    const int8_t *input;
    const int8_t *weights;
    const channel_t *channels;
    const int8_t *table; /* 1024 entries, or NULL */
    int8_t *output;      /* element (row, o) at row * row_stride + o * output_stride */
    int16_t *residual;   /* (rows, outputs), added to in place */
    int32_t rows, depth, outputs;
    int32_t row_stride, output_stride;
} linear_tile_t;

void linear_kernel(const linear_tile_t *tile, int core, int cores);

/* Rotary positions of int8 (rows, 2 * half), in place. */
typedef struct {
    int8_t *states;
    const int16_t *rotation; /* (rows, 2, half): cosines, then sines */
    int32_t rows, half;
} rotary_tile_t;

void rotary_kernel(const rotary_tile_t *tile, int core, int cores);

/* int8 (rows, depth) x int8 (keys, depth) -> int16 (rows, keys) of rows `stride` elements apart; depth is a
 * multiple of 4. */
typedef struct {
    const int8_t *queries;
    const int8_t *keys;
    int16_t *scores;
    int32_t rows, key_count, depth, stride;
    int32_t multiplier, shift;
} scores_tile_t;

void scores_kernel(const scores_tile_t *tile, int core, int cores);

/* int16 scores (rows, keys) -> uint8 weights in place, of rows 2 * stride bytes apart, zeros up to a multiple of 4. */
typedef struct {
    int16_t *scores;
    uint32_t *reciprocals;        /* (rows,): reciprocal / sum of the row's weights */
    const uint16_t *exponentials; /* 256 entries */
    int32_t rows, key_count, stride;
    uint32_t reciprocal;
} softmax_tile_t;

void softmax_kernel(const softmax_tile_t *tile, int core, int cores);

/* uint8 weights (rows, keys) x int8 values (depth, keys) added to int32 sums (rows, depth), and after the last block
 * of keys int8 (rows, depth). `key_count` and depth are multiples of 4. */
typedef struct {
    const uint8_t *weights; /* rows `stride` bytes apart */
    const int8_t *values;   /* rows of key_count bytes */
    const uint32_t *reciprocals;
    int32_t *sums;
    int8_t *output;
    int32_t rows, key_count, depth, stride;
    int32_t shift;
    int32_t first, last; /* whether this is the first, the last block of keys */
} values_tile_t;

void values_kernel(const values_tile_t *tile, int core, int cores);

/* int8 (rows, width) added to int32 sums (width,), and after the last rows int16 or int8 (width,). */
typedef struct {
    const int8_t *input;
    int32_t *sums;
    void *output; /* int16_t where limit > 127, else int8_t */
    int32_t rows, width;
    int32_t multiplier, shift, limit;
    int32_t first, last;
} pool_tile_t;

void pool_kernel(const pool_tile_t *tile, int core, int cores);

/* int8 (rows, width), kernel 3 over the rows -> int16 (rows, width). */
typedef struct {
    const int8_t *input;
    const int8_t *weights; /* (width, 3) */
    const channel_t *channels;
    const int16_t *table; /* 1024 entries */
    int16_t *output;
    int32_t rows, width, padding;
} depthwise_tile_t;

void depthwise_kernel(const depthwise_tile_t *tile, int core, int cores);

/* int16 (rows, depth) x int8 (outputs, depth) -> int32 (rows, outputs). */
typedef struct {
    const int16_t *input;
    const int8_t *weights;
    const int32_t *bias;
    int32_t *output;
    int32_t rows, depth, outputs;
} head_tile_t;

void head_kernel(const head_tile_t *tile, int core, int cores);

#endif
