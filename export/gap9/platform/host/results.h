/* What came out, as a table or as JSON. */
#ifndef RESULTS_H
#define RESULTS_H

#include <stdint.h>

#include "files.h"
#include "shim.h"

typedef struct {
    vector_t expected;
    uint32_t *checksums; /* of the steps */
    int logits_agree;
    float *logits; /* real numbers */
} outcome_t;

/* Of one step, the same for every vector but for the instructions, which are those of the last. */
typedef struct {
    traffic_t traffic;
    uint64_t instructions;
} cost_t;

typedef struct {
    outcome_t *outcomes;
    int32_t count; /* vectors that were run */
    cost_t *costs; /* of the steps */
} results_t;

/* Of outputs of steps, and of logits. */
int32_t mismatches(const results_t *results);

void print_table(const results_t *results, int with_instructions);
void print_json(const results_t *results);

/* Real logits of one vector. */
int32_t logit_count(void);

#endif
