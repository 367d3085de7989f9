/* $title
 *
 * Generated. Every step takes one tensor in L2 through L1 to another. A tensor has the name of the step that makes it;
 * "hidden_states" is the residual stream. A real value is scale * (integer - zero point).
 */
#include "network.h"

#include <stddef.h>

#include "steps.h"

/* L2, $l2_size bytes: offsets of tensors, and of parameters while they are there. What is never needed at the same
 * time shares addresses; the comments say in which steps something is needed (numbers of the table at the end). */
enum {
$memory_map
};

$steps

/* Parameters in the order of weights.bin. Loading starts before step .issued_at, and is waited for by the step. */
static const slab_t slabs[] = {
$slabs
};

static const network_step_t steps[] = {
$table
};

static const float output_scales[] = {
$output_scales
};

static const char *const labels[] = {
$labels
};

const network_t network = {
    .name = $name,
    .l1_size = $l1_size,
    .l2_size = $l2_size,
    .l3_size = $l3_size,
    .weights_crc = $weights_crc,
    .input = L2_INPUT_VALUES,
    .input_size = $input_size,
    .output = L2_LOGITS,
    .output_rows = $output_rows,
    .outputs = $outputs,
    .target_length = $target_length,
    .input_scale = $input_scale,
    .output_scales = output_scales,
    .labels = labels,
    .slabs = slabs,
    .slab_count = $slab_count,
    .steps = steps,
    .step_count = $step_count,
};
