#include "test_vectors.h"

#include <string.h>

#include "crc32.h"

const char *vectors_problem(const vectors_header_t *header) {
    if (memcmp(header->magic, VECTORS_MAGIC, sizeof header->magic) != 0) {
        return "not a file of test vectors: it does not start with " VECTORS_MAGIC;
    }
    if (header->version != VECTORS_VERSION) {
        return "test vectors of another version; export the model again";
    }
    const uint32_t logits_size = (uint32_t)(network.output_rows * network.outputs) * (uint32_t)sizeof(int32_t);
    if (header->steps != (uint32_t)network.step_count || header->input_size != network.input_size ||
        header->logits_size != logits_size) {
        return "test vectors of another network; use those that were exported with it";
    }
    return NULL;
}

uint32_t output_checksum(const network_step_t *step, const uint8_t *l2) {
    if (step->stride == step->row_bytes) {
        return crc32_update(0, l2 + step->output, step->rows * step->row_bytes);
    }
    uint32_t checksum = 0;
    for (uint32_t row = 0; row < step->rows; row++) {
        checksum = crc32_update(checksum, l2 + step->output + row * step->stride, step->row_bytes);
    }
    return checksum;
}
