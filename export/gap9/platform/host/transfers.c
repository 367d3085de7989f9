#include <string.h>

#include "bsp/ram.h"
#include "instret.h"
#include "pmsis.h"
#include "shim_internal.h"

#define LARGEST_SIZE 65535
#define DMA_UNDER_WAY 16
#define ANY_UNDER_WAY 32 /* loads from L3 included */

typedef enum { LOAD, STORE, STREAM } kind_t; /* L2 to L1, L1 to L2, L3 to L2 */

static const char *const kind_names[] = {"load from L2 to L1", "store from L1 to L2", "load from L3 to L2"};

/* A transfer that was not waited for yet. The L2 side has rows, the other one does not. */
typedef struct {
    kind_t kind;
    uint32_t id; /* 0: none */
    uint8_t *other, *l2;
    uint32_t other_offset, l2_offset;
    uint32_t rows, row_size, stride;
} transfer_t;

static transfer_t under_way[ANY_UNDER_WAY];
static uint32_t last_id;

static uint32_t span(const transfer_t *transfer) {
    return (transfer->rows - 1) * transfer->stride + transfer->row_size;
}

/* Whether bytes `offset` to `offset + size` of L2 meet one of the rows. */
static int meets(const transfer_t *transfer, uint32_t offset, uint32_t size) {
    uint32_t row = 0; /* the first that ends behind `offset` */
    if (offset >= transfer->l2_offset + transfer->row_size) {
        row = (offset - transfer->l2_offset - transfer->row_size) / transfer->stride + 1;
    }
    return row < transfer->rows && transfer->l2_offset + row * transfer->stride < offset + size;
}

static int share_l2(const transfer_t *a, const transfer_t *b) {
    if (a->l2 - a->l2_offset != b->l2 - b->l2_offset || a->l2_offset >= b->l2_offset + span(b) ||
        b->l2_offset >= a->l2_offset + span(a)) {
        return 0;
    }
    for (uint32_t row = 0; row < a->rows; row++) {
        if (meets(b, a->l2_offset + row * a->stride, a->row_size)) {
            return 1;
        }
    }
    return 0;
}

static int share_l1(const transfer_t *a, const transfer_t *b) {
    return a->kind != STREAM && b->kind != STREAM && a->other < b->other + b->rows * b->row_size &&
           b->other < a->other + a->rows * a->row_size;
}

static void check_against_others(const transfer_t *transfer) {
    for (int i = 0; i < ANY_UNDER_WAY; i++) {
        const transfer_t *other = &under_way[i];
        if (other->id == 0) {
            continue;
        }
        if (share_l1(transfer, other)) {
            shim_fail("%s: L1 offset %lu is part of a %s of offset %lu that was not waited for",
                      kind_names[transfer->kind], (unsigned long)transfer->other_offset, kind_names[other->kind],
                      (unsigned long)other->other_offset);
        }
        if ((transfer->kind != LOAD || other->kind != LOAD) && share_l2(transfer, other)) {
            shim_fail("%s: L2 offset %lu is part of a %s of offset %lu that was not waited for",
                      kind_names[transfer->kind], (unsigned long)transfer->l2_offset, kind_names[other->kind],
                      (unsigned long)other->l2_offset);
        }
    }
}

static void move(const transfer_t *transfer) {
    for (uint32_t row = 0; row < transfer->rows; row++) {
        uint8_t *other = transfer->other + row * transfer->row_size, *l2 = transfer->l2 + row * transfer->stride;
        const int load = transfer->kind == LOAD;
        memcpy(load ? other : l2, load ? l2 : other, transfer->row_size);
    }
}

static void poison_target(const transfer_t *transfer) {
    if (transfer->kind == LOAD) {
        shim_poison(transfer->other, transfer->rows * transfer->row_size);
        return;
    }
    for (uint32_t row = 0; row < transfer->rows; row++) {
        shim_poison(transfer->l2 + row * transfer->stride, transfer->row_size);
    }
}

static void count(const transfer_t *transfer) {
    const uint32_t size = transfer->rows * transfer->row_size;
    shim.traffic.read += transfer->kind == LOAD ? size : 0;
    shim.traffic.written += transfer->kind == STORE ? size : 0;
    shim.traffic.streamed += transfer->kind == STREAM ? size : 0;
    shim.traffic.transfers += transfer->kind != STREAM;
}

static uint32_t start(transfer_t transfer) {
    int dma = 0, place = -1;
    for (int i = 0; i < ANY_UNDER_WAY; i++) {
        dma += under_way[i].id != 0 && under_way[i].kind != STREAM;
        place = under_way[i].id == 0 ? i : place;
    }
    if (place < 0 || (transfer.kind != STREAM && dma == DMA_UNDER_WAY)) {
        shim_fail("%s of L2 offset %lu: %d transfers are under way already, wait for one", kind_names[transfer.kind],
                  (unsigned long)transfer.l2_offset, transfer.kind == STREAM ? ANY_UNDER_WAY : DMA_UNDER_WAY);
    }
    check_against_others(&transfer);
    count(&transfer);
    if (shim.mode == DMA_EARLY) {
        move(&transfer);
    } else {
        poison_target(&transfer);
    }
    if (transfer.kind != STREAM) {
        shim_forbid(transfer.other, transfer.rows * transfer.row_size);
    }
    transfer.id = ++last_id;
    under_way[place] = transfer;
    return transfer.id;
}

static void finish(uint32_t id, const char *what) {
    for (int i = 0; i < ANY_UNDER_WAY; i++) {
        transfer_t *transfer = &under_way[i];
        if (id == 0 || transfer->id != id) {
            continue;
        }
        if (transfer->kind != STREAM) {
            shim_allow(transfer->other, transfer->rows * transfer->row_size);
        }
        if (shim.mode == DMA_LATE) {
            move(transfer);
        }
        transfer->id = 0;
        return;
    }
    shim_fail("%s: waits for a transfer that is not under way", what);
}

void shim_check_transfers(int with_l3) {
    for (int i = 0; i < ANY_UNDER_WAY; i++) {
        const transfer_t *transfer = &under_way[i];
        if (transfer->id != 0 && (with_l3 || transfer->kind != STREAM)) {
            shim_fail("%s of L2 offset %lu was never waited for", kind_names[transfer->kind],
                      (unsigned long)transfer->l2_offset);
        }
    }
}

static void start_dma(pi_cl_dma_copy_t *copy, uint32_t rows, uint32_t row_size, uint32_t stride) {
    transfer_t transfer = {
        .kind = copy->dir == PI_CL_DMA_DIR_EXT2LOC ? LOAD : STORE, .rows = rows, .row_size = row_size, .stride = stride};
    const char *name = kind_names[transfer.kind];
    transfer.other = shim_locate(LEVEL_L1, copy->loc, copy->size, &transfer.other_offset);
    if (transfer.other == NULL) {
        shim_fail("%s: %lu bytes at L1 address 0x%08lx are not inside one allocation", name, (unsigned long)copy->size,
                  (unsigned long)copy->loc);
    }
    transfer.l2 = shim_locate(LEVEL_L2, copy->ext, (uint64_t)(rows - 1) * stride + row_size, &transfer.l2_offset);
    if (transfer.l2 == NULL) {
        shim_fail("%s: %lu rows of %lu bytes, %lu apart, at L2 address 0x%08lx are not inside one allocation", name,
                  (unsigned long)rows, (unsigned long)row_size, (unsigned long)stride, (unsigned long)copy->ext);
    }
    copy->id = start(transfer);
}

static void check_size(const pi_cl_dma_copy_t *copy) {
    if (copy->size == 0 || copy->size > LARGEST_SIZE) {
        shim_fail("a transfer at L2 address 0x%08lx has %lu bytes; the DMA moves 1 to %d", (unsigned long)copy->ext,
                  (unsigned long)copy->size, LARGEST_SIZE);
    }
    if (copy->merge != 0) {
        shim_fail("a transfer at L2 address 0x%08lx is merged with another, which this shim does not follow",
                  (unsigned long)copy->ext);
    }
}

void pi_cl_dma_memcpy(pi_cl_dma_copy_t *copy) {
    const uint64_t before = instructions();
    check_size(copy);
    start_dma(copy, 1, copy->size, copy->size);
    shim.traffic.instructions += instructions() - before;
}

void pi_cl_dma_memcpy_2d(pi_cl_dma_copy_t *copy) {
    const uint64_t before = instructions();
    check_size(copy);
    if (copy->length == 0 || copy->size % copy->length != 0 || copy->stride < copy->length ||
        copy->stride > LARGEST_SIZE) {
        shim_fail("a transfer at L2 address 0x%08lx has %lu bytes in rows of %lu, %lu apart", (unsigned long)copy->ext,
                  (unsigned long)copy->size, (unsigned long)copy->length, (unsigned long)copy->stride);
    }
    start_dma(copy, copy->size / copy->length, copy->length, copy->stride);
    shim.traffic.instructions += instructions() - before;
}

void pi_cl_dma_wait(void *copy) {
    const uint64_t before = instructions();
    finish(((pi_cl_dma_copy_t *)copy)->id, "DMA");
    shim.traffic.instructions += instructions() - before;
}

void pi_cl_ram_read(struct pi_device *device, uint32_t address, void *data, uint32_t size, pi_cl_ram_req_t *request) {
    const uint64_t before = instructions();
    const uint32_t l2 = (uint32_t)(uintptr_t)data;
    transfer_t transfer = {.kind = STREAM, .rows = 1, .row_size = size, .stride = size};
    (void)device;
    transfer.other = shim_ram(address, size);
    transfer.l2 = shim_locate(LEVEL_L2, l2, size, &transfer.l2_offset);
    if (transfer.l2 == NULL) {
        shim_fail("%s: %lu bytes at L2 address 0x%08lx are not inside one allocation", kind_names[STREAM],
                  (unsigned long)size, (unsigned long)l2);
    }
    request->id = start(transfer);
    shim.traffic.instructions += instructions() - before;
}

void pi_cl_ram_read_wait(pi_cl_ram_req_t *request) {
    const uint64_t before = instructions();
    finish(request->id, "L3");
    shim.traffic.instructions += instructions() - before;
}
