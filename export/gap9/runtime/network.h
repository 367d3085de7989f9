/* The network: its steps in order, and the parameters that are loaded for them from L3. network.c is generated. */
#ifndef NETWORK_H
#define NETWORK_H

#include <stdint.h>

/* Parameters of one step: a piece of weights.bin. */
typedef struct {
    uint32_t l3, l2, size;
    int32_t issued_at; /* step before which loading starts */
} slab_t;

/* One step and its output, `rows` rows of `row_bytes`, `stride` bytes apart in L2. */
typedef struct {
    const char *name;
    void (*run)(const void *step);
    const void *step;
    int32_t slab; /* its number, or -1 */
    uint32_t output;
    uint32_t rows, row_bytes, stride;
} network_step_t;

typedef struct {
    const char *name;
    uint32_t l1_size, l2_size, l3_size; /* arenas; l3_size is that of weights.bin */
    uint32_t weights_crc;               /* CRC-32 of weights.bin */
    uint32_t input, input_size;         /* L2: int16 (channels, samples) */
    uint32_t output;                    /* L2: int32 (output_rows, outputs) */
    int32_t output_rows, outputs;
    int32_t target_length; /* frames that the rows are interpolated to; 0 of a classification */
    float input_scale;     /* of one step of the input */
    const float *output_scales;
    const char *const *labels;
    const slab_t *slabs;
    int32_t slab_count;
    const network_step_t *steps;
    int32_t step_count;
} network_t;

extern const network_t network;

/* Told of every step right after it has run; may be NULL. */
typedef void (*observer_t)(int32_t step, const network_step_t *what, const uint8_t *l2);

/* Run the network on the window in L2, on the core that leads the cluster. */
void network_run(observer_t observer);

/* Logits of the last run as real numbers, the only floats there are: (labels,), or (target_length, outputs). */
void network_logits(const uint8_t *l2, float *logits);

#endif
