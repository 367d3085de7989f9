/* Shares: how the cores divide the items of a tile, to within one item, in contiguous ranges. */
#ifndef SHARE_H
#define SHARE_H

#include <stdint.h>

typedef struct {
    int32_t first, end;
} share_t;

/* Items of one core. */
static inline share_t share_of(int32_t items, int core, int cores) {
    const int32_t each = items / cores, more = items - each * cores; /* the first `more` cores have one item more */
    const int32_t first = core * each + (core < more ? core : more);
    return (share_t){first, first + each + (core < more ? 1 : 0)};
}

/* A place in a matrix divided in blocks of 2 rows by 4 columns, those at the edges being smaller; `left` blocks of the
 * share from here on, in the order of memory. */
typedef struct {
    int32_t row, column, left;
} block_t;

static inline block_t first_block(int32_t rows, int32_t columns, int core, int cores) {
    const int32_t across = (columns + 3) / 4;
    const share_t share = share_of((rows + 1) / 2 * across, core, cores);
    if (share.first == share.end) {
        return (block_t){0, 0, 0};
    }
    const int32_t row = share.first / across;
    return (block_t){2 * row, 4 * (share.first - row * across), share.end - share.first};
}

static inline block_t next_block(block_t block, int32_t columns) {
    block.left--;
    block.column += 4;
    if (block.column >= columns) {
        block.column = 0;
        block.row += 2;
    }
    return block;
}

#endif
