#include "network.h"

#include <string.h>

/* The only floats of the network. */

static float logit(const uint8_t *l2, int32_t row, int32_t output) {
    int32_t value;
    memcpy(&value, l2 + network.output + (uint32_t)(row * network.outputs + output) * sizeof value, sizeof value);
    return network.output_scales[output] * (float)value;
}

/* Frame `frame` of `target_length` lies between two rows; frames and rows cover the same time, and their middles count
 * (align_corners=False). Ends are repeated. */
static void interpolate(const uint8_t *l2, int32_t frame, float *logits) {
    const float position =
        ((float)frame + 0.5f) * (float)network.output_rows / (float)network.target_length - 0.5f;
    const float inside = position > 0 ? position : 0;
    const int32_t row = (int32_t)inside;
    const int32_t next = row + 1 < network.output_rows ? row + 1 : row;
    const float share = inside - (float)row;
    for (int32_t output = 0; output < network.outputs; output++) {
        logits[output] = (1 - share) * logit(l2, row, output) + share * logit(l2, next, output);
    }
}

void network_logits(const uint8_t *l2, float *logits) {
    if (network.target_length > 0) {
        for (int32_t frame = 0; frame < network.target_length; frame++) {
            interpolate(l2, frame, logits + frame * network.outputs);
        }
        return;
    }
    for (int32_t output = 0; output < network.outputs; output++) {
        logits[output] = logit(l2, 0, output);
    }
}
