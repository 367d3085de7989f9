/* Tensors are cut into tiles: `block` elements each, and what is left in the last. */
#ifndef TILES_H
#define TILES_H

#include <stdint.h>

#define CORES 8            /* of the cluster, which share a tile */
#define TABLE_ENTRIES 1024 /* of an activation */

static inline int32_t tile_count(int32_t size, int32_t block) {
    return (size + block - 1) / block;
}

static inline int32_t tile_size(int32_t size, int32_t block, int32_t start) {
    return size - start < block ? size - start : block;
}

#endif
