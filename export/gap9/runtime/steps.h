/* Steps: each takes one tensor in L2 through L1 tile by tile (load, compute, store) to another.
 *
 * A step is described by a constant structure in network.c. L2 and L1 addresses are offsets in the two arenas. Pairs
 * are double buffers: while one is computed on, the other is loaded or stored.
 */
#ifndef STEPS_H
#define STEPS_H

#include <stdint.h>

#define NOWHERE UINT32_MAX /* offset of what a step does not have */

typedef struct {
    uint32_t input, output;     /* L2: int16 (rows, depth), int16 (rows, outputs) */
    uint32_t weights, channels; /* L2 */
    int32_t rows, depth, outputs, row_block;
    struct {
        uint32_t input[2], weights, channels, output[2];
    } l1;
} patch_embedding_step_t;

typedef struct {
    uint32_t input, output; /* L2: int16 (rows, width), int8 (rows, width) */
    uint32_t weights, bias; /* L2 */
    int64_t epsilon;
    int32_t rows, width, shift, row_block;
    int32_t patches; /* rows of one channel where the output is (patches, channels * width), else 0 */
    struct {
        uint32_t input[2], weights, bias, output[2];
    } l1;
} layer_norm_step_t;

typedef enum { ROWS, HEADS, TRANSPOSED } layout_t;

typedef struct {
    uint32_t input, output;                      /* L2 */
    uint32_t weights, channels, table, rotation; /* L2; table and rotation may be NOWHERE */
    int32_t rows, depth, outputs;
    int32_t row_block, output_block;
    layout_t layout;       /* of HEADS and TRANSPOSED a head is an output block */
    int32_t output_stride; /* bytes from one row of the output to the next */
    int32_t residual;      /* whether output is int16, and is added to */
    struct {
        uint32_t input[2], weights[2], channels[2], output[2], rotation[2], table;
    } l1;
} linear_step_t;

typedef struct {
    uint32_t queries_keys, values, output, exponentials; /* L2 */
    int32_t tokens, heads, head_size;
    int32_t value_stride; /* bytes from one row of the values to the next, and keys of a row of scores: N4 */
    int32_t row_block, key_block;
    int32_t score_multiplier, score_shift;
    uint32_t reciprocal;
    int32_t shift;
    struct {
        uint32_t query[2], block[2], scores, reciprocals, sums, output[2], exponentials;
    } l1;
} attention_step_t;

typedef struct {
    uint32_t input, output; /* L2: int8 (outer, count, inner), int16 or int8 (outer, inner) */
    int32_t outer, count, inner, row_block;
    int32_t multiplier, shift, limit;
    struct {
        uint32_t input[2], sums, output;
    } l1;
} pool_step_t;

typedef struct {
    uint32_t input, output, weights, channels, table; /* L2 */
    int32_t rows, width, padding;
    struct {
        uint32_t input, weights, channels, table, output;
    } l1;
} depthwise_step_t;

typedef struct {
    uint32_t input, output, weights, bias; /* L2: int16 (rows, depth), int32 (rows, outputs) */
    int32_t rows, depth, outputs, output_block;
    struct {
        uint32_t input, weights[2], bias[2], output[2];
    } l1;
} head_step_t;

/* Called on the core that leads the cluster; `step` is one of the structures above. */
void run_patch_embedding(const void *step);
void run_layer_norm(const void *step);
void run_linear(const void *step);
void run_attention(const void *step);
void run_pool(const void *step);
void run_depthwise(const void *step);
void run_head(const void *step);

#endif
