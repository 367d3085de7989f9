#include "shim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pmsis.h"
#include "shim_internal.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#define GUARD 256
#define GUARD_BYTE 0x5A
#define POISON_BYTE 0xA5
#define ALLOCATIONS 16
#define ALIGNMENT 16

static const char *const level_names[] = {"L1", "L2"};
static const uint32_t level_sizes[] = {128 * 1024, 1536 * 1024};

typedef struct {
    void *memory;   /* of the machine */
    uint8_t *start; /* GUARD bytes before and behind */
    uint32_t size;
    level_t level;
} allocation_t;

static allocation_t allocations[ALLOCATIONS];
static int allocation_count;

shim_t shim = {.mode = DMA_LATE, .step = "start"};

void shim_fail(const char *format, ...) {
    va_list arguments;
    fflush(stdout);
    fprintf(stderr, "error: step '%s': ", shim.step);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

void shim_configure(dma_mode_t mode, uint32_t seed) {
    shim.mode = mode;
    shim.seed = seed;
}

const traffic_t *shim_traffic(void) {
    return &shim.traffic;
}

void shim_forbid(const void *memory, size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(memory, size);
#else
    (void)memory, (void)size;
#endif
}

void shim_allow(const void *memory, size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(memory, size);
#else
    (void)memory, (void)size;
#endif
}

void shim_poison(void *memory, size_t size) {
    memset(memory, POISON_BYTE, size);
}

static void *allocate(level_t level, int size) {
    uint32_t used = 0;
    for (int i = 0; i < allocation_count; i++) {
        used += allocations[i].level == level ? allocations[i].size : 0;
    }
    if (size <= 0 || (uint32_t)size > level_sizes[level] - used || allocation_count == ALLOCATIONS) {
        return NULL;
    }
    uint8_t *memory = malloc((size_t)size + 2 * GUARD + ALIGNMENT);
    if (memory == NULL) {
        return NULL;
    }
    uint8_t *start = memory + GUARD + (ALIGNMENT - (uintptr_t)(memory + GUARD) % ALIGNMENT) % ALIGNMENT;
    memset(start - GUARD, GUARD_BYTE, GUARD);
    memset(start + size, GUARD_BYTE, GUARD);
    shim_forbid(start - GUARD, GUARD);
    shim_forbid(start + size, GUARD);
    shim_poison(start, (size_t)size);
    allocations[allocation_count++] = (allocation_t){memory, start, (uint32_t)size, level};
    return start;
}

void *pi_l2_malloc(int size) {
    return allocate(LEVEL_L2, size);
}

void pi_l2_free(void *memory, int size) {
    int i = 0;
    while (i < allocation_count && allocations[i].start != memory) {
        i++;
    }
    if (i == allocation_count || allocations[i].level != LEVEL_L2 || allocations[i].size != (uint32_t)size) {
        shim_fail("%d bytes are given back to L2 that were not allocated", size);
    }
    free(allocations[i].memory);
    allocations[i] = allocations[--allocation_count];
}

void *pi_cl_l1_malloc(struct pi_device *device, int size) {
    (void)device;
    return allocate(LEVEL_L1, size);
}

uint8_t *shim_locate(level_t level, uint32_t address, uint64_t size, uint32_t *offset) {
    for (int i = 0; i < allocation_count; i++) {
        const allocation_t *allocation = &allocations[i];
        *offset = address - (uint32_t)(uintptr_t)allocation->start; /* of wide addresses the low half */
        if (allocation->level == level && *offset < allocation->size && size <= allocation->size - *offset) {
            return allocation->start + *offset;
        }
    }
    return NULL;
}

static void check_guard(const allocation_t *allocation, const uint8_t *guard) {
    shim_allow(guard, GUARD);
    for (int i = 0; i < GUARD; i++) {
        if (guard[i] != GUARD_BYTE) {
            shim_fail("%s: byte at offset %ld of an allocation of %lu bytes was written", level_names[allocation->level],
                      (long)(guard + i - allocation->start), (unsigned long)allocation->size);
        }
    }
    shim_forbid(guard, GUARD);
}

static void check_guards(void) {
    for (int i = 0; i < allocation_count; i++) {
        check_guard(&allocations[i], allocations[i].start - GUARD);
        check_guard(&allocations[i], allocations[i].start + allocations[i].size);
    }
}

void shim_begin_step(const char *name) {
    shim.step = name;
    shim.traffic = (traffic_t){0};
}

void shim_end_step(void) {
    shim_check_transfers(0);
    check_guards();
    for (int i = 0; i < allocation_count; i++) {
        if (allocations[i].level == LEVEL_L1) {
            shim_poison(allocations[i].start, allocations[i].size);
        }
    }
}

void shim_end_run(void) {
    shim_check_transfers(1);
    check_guards();
}
