/* Small programs against the host's PMSIS, one per name: `cases NAME late|early [SEED]`. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "bsp/ram.h"
#include "pmsis.h"
#include "shim.h"

#define SIZE 1024
#define LARGE (100 * 1024)

static struct pi_device ram;
static uint32_t ram_address;
static uint8_t *l1, *l2, *large_l1, *large_l2;

static pi_cl_dma_copy_t copy_of(uint8_t *local, uint8_t *external, uint32_t size, pi_cl_dma_dir_e direction) {
    return (pi_cl_dma_copy_t){
        .loc = (uint32_t)(uintptr_t)local, .ext = (uint32_t)(uintptr_t)external, .size = size, .dir = direction};
}

static pi_cl_dma_copy_t load(uint8_t *local, uint8_t *external, uint32_t size) {
    pi_cl_dma_copy_t copy = copy_of(local, external, size, PI_CL_DMA_DIR_EXT2LOC);
    pi_cl_dma_memcpy(&copy);
    return copy;
}

static pi_cl_dma_copy_t store(uint8_t *local, uint8_t *external, uint32_t size) {
    pi_cl_dma_copy_t copy = copy_of(local, external, size, PI_CL_DMA_DIR_LOC2EXT);
    pi_cl_dma_memcpy(&copy);
    return copy;
}

static pi_cl_dma_copy_t rows(uint8_t *external, uint32_t size, uint32_t length, uint32_t stride, pi_cl_dma_dir_e direction,
                             uint32_t local) {
    pi_cl_dma_copy_t copy = copy_of(l1 + local, external, size, direction);
    copy.length = length;
    copy.stride = stride;
    pi_cl_dma_memcpy_2d(&copy);
    return copy;
}

static void wait(pi_cl_dma_copy_t copy) {
    pi_cl_dma_wait(&copy);
}

static pi_cl_ram_req_t stream(uint8_t *external, uint32_t offset, uint32_t size) {
    pi_cl_ram_req_t request;
    pi_cl_ram_read(&ram, ram_address + offset, external, size, &request);
    return request;
}

static void print(const uint8_t *bytes, int count) {
    for (int i = 0; i < count; i++) {
        printf("%d ", bytes[i]);
    }
    printf("\n");
}

static void print_core(void *unused) {
    (void)unused;
    printf("%d ", (int)pi_core_id());
}

static void fork_again(void *unused) {
    (void)unused;
    pi_cl_team_fork(8, print_core, NULL);
}

/* l2 holds 0, 1, 2, ..., l1 what is never valid. */
static void moves_both_ways(void) {
    pi_cl_dma_copy_t in = load(l1, l2 + 8, 16);
    wait(in);
    print(l1, 4);
    wait(rows(l2 + 100, 6, 2, 10, PI_CL_DMA_DIR_EXT2LOC, 64));
    print(l1 + 64, 6);
    wait(rows(l2 + 200, 6, 3, 50, PI_CL_DMA_DIR_LOC2EXT, 64));
    print(l2 + 200, 4);
    print(l2 + 250, 4);
    wait(store(l1, l2, 4));
    print(l2, 5);
    pi_cl_ram_req_t request = stream(l2 + 500, 3, 4);
    pi_cl_ram_read_wait(&request);
    print(l2 + 500, 5);
    const traffic_t *traffic = shim_traffic();
    printf("%d %d %d %d\n", (int)traffic->read, (int)traffic->written, (int)traffic->transfers, (int)traffic->streamed);
}

static void read_before_wait(void) {
    pi_cl_dma_copy_t copy = load(l1, l2 + 8, 16);
    print(l1, 4);
    wait(copy);
}

static void write_before_wait(void) {
    memset(l1, 7, 16);
    pi_cl_dma_copy_t copy = store(l1, l2, 16);
    memset(l1, 9, 16);
    wait(copy);
    print(l2, 4);
}

static void stream_before_wait(void) {
    pi_cl_ram_req_t request = stream(l2, 0, 4);
    print(l2, 4);
    pi_cl_ram_read_wait(&request);
}

static void outside_l1(void) { wait(load(l1 + SIZE - 8, l2, 9)); }
static void before_l1(void) { wait(load(l1 - 1, l2, 9)); }
static void outside_l2(void) { wait(store(l1, l2 + SIZE - 8, 9)); }
static void l1_for_l2(void) { wait(load(l1, l1 + 64, 9)); }
static void last_row_outside_l2(void) { wait(rows(l2 + SIZE - 108, 30, 10, 50, PI_CL_DMA_DIR_EXT2LOC, 0)); }
static void last_row_inside_l2(void) { wait(rows(l2 + SIZE - 110, 30, 10, 50, PI_CL_DMA_DIR_EXT2LOC, 0)); }
static void outside_l3(void) { stream(l2, SIZE - 3, 4); }
static void stream_outside_l2(void) { stream(l2 + SIZE - 3, 0, 4); }
static void nothing(void) { wait(load(l1, l2, 0)); }
static void largest(void) { wait(load(large_l1, large_l2, 65535)); }
static void too_large(void) { wait(load(large_l1, large_l2, 65536)); }
static void too_large_rows(void) {
    pi_cl_dma_copy_t copy = copy_of(large_l1, large_l2, 65600, PI_CL_DMA_DIR_EXT2LOC);
    copy.length = 100;
    copy.stride = 100;
    pi_cl_dma_memcpy_2d(&copy);
}
static void broken_row(void) { wait(rows(l2, 25, 10, 50, PI_CL_DMA_DIR_EXT2LOC, 0)); }
static void overlapping_rows(void) { wait(rows(l2, 30, 10, 9, PI_CL_DMA_DIR_EXT2LOC, 0)); }
static void rows_too_far_apart(void) { wait(rows(l2, 10, 10, 65536, PI_CL_DMA_DIR_EXT2LOC, 0)); }

static void under_way(int count) {
    pi_cl_dma_copy_t copies[17];
    for (int i = 0; i < count; i++) {
        copies[i] = load(l1 + 8 * i, l2, 8);
    }
    for (int i = 0; i < count; i++) {
        wait(copies[i]);
    }
}
static void sixteen_under_way(void) { under_way(16); }
static void seventeen_under_way(void) { under_way(17); }

static void same_l1(void) {
    load(l1, l2, 16);
    load(l1 + 15, l2 + 64, 16);
}
static void next_to_in_l1(void) {
    pi_cl_dma_copy_t copy = load(l1, l2, 16);
    wait(load(l1 + 16, l2, 16));
    wait(copy);
}
static void loaded_while_stored(void) {
    store(l1, l2 + 32, 16);
    load(l1 + 64, l2 + 40, 16);
}
static void between_rows(void) {
    pi_cl_dma_copy_t copy = rows(l2, 40, 10, 20, PI_CL_DMA_DIR_LOC2EXT, 0);
    wait(rows(l2 + 10, 40, 10, 20, PI_CL_DMA_DIR_EXT2LOC, 64));
    wait(copy);
}
static void on_rows(void) {
    rows(l2, 40, 10, 20, PI_CL_DMA_DIR_LOC2EXT, 0);
    rows(l2 + 49, 10, 5, 20, PI_CL_DMA_DIR_EXT2LOC, 64);
}
static void loaded_while_streamed(void) {
    stream(l2 + 32, 0, 16);
    load(l1, l2 + 40, 16);
}

static void never_waited(void) { load(l1, l2 + 48, 16); }
static void never_waited_stream(void) { stream(l2 + 48, 0, 16); }
static void waited_twice(void) {
    pi_cl_dma_copy_t copy = load(l1, l2, 16);
    wait(copy);
    wait(copy);
}

static void behind_l1(void) { memset(large_l1 + LARGE, 1, 1); }
static void before_l2(void) { memset(l2 - 5, 1, 1); }

static void poisons(void) {
    print(l1, 2);
    wait(load(l1, l2, 8));
    shim_end_step();
    print(l1, 2);
}

static void too_much_memory(void) {
    printf("%d %d %d\n", pi_cl_l1_malloc(NULL, 128 * 1024 - SIZE - LARGE + 1) == NULL,
           pi_l2_malloc(1536 * 1024 - SIZE - LARGE + 1) == NULL, pi_l2_malloc(1536 * 1024 - SIZE - LARGE) != NULL);
}

static void forks(void) {
    for (int i = 0; i < 4; i++) {
        pi_cl_team_fork(8, print_core, NULL);
        printf("%d\n", (int)pi_core_id());
    }
}
static void forks_in_a_fork(void) { pi_cl_team_fork(8, fork_again, NULL); }
static void forks_nine(void) { pi_cl_team_fork(9, print_core, NULL); }

#define CASE(name) {#name, name}
static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    CASE(moves_both_ways), CASE(read_before_wait), CASE(write_before_wait), CASE(stream_before_wait), CASE(outside_l1),
    CASE(before_l1), CASE(outside_l2), CASE(l1_for_l2), CASE(last_row_outside_l2), CASE(last_row_inside_l2),
    CASE(outside_l3), CASE(stream_outside_l2), CASE(nothing), CASE(largest), CASE(too_large), CASE(too_large_rows),
    CASE(broken_row), CASE(overlapping_rows), CASE(rows_too_far_apart), CASE(sixteen_under_way),
    CASE(seventeen_under_way), CASE(same_l1), CASE(next_to_in_l1), CASE(loaded_while_stored), CASE(between_rows),
    CASE(on_rows), CASE(loaded_while_streamed), CASE(never_waited), CASE(never_waited_stream), CASE(waited_twice),
    CASE(behind_l1), CASE(before_l2), CASE(poisons), CASE(too_much_memory), CASE(forks), CASE(forks_in_a_fork),
    CASE(forks_nine),
};

static void prepare(void) {
    l1 = pi_cl_l1_malloc(NULL, SIZE);
    l2 = pi_l2_malloc(SIZE);
    large_l1 = pi_cl_l1_malloc(NULL, LARGE);
    large_l2 = pi_l2_malloc(LARGE);
    pi_ram_alloc(&ram, &ram_address, SIZE);
    for (int i = 0; i < SIZE; i++) {
        l2[i] = (uint8_t)i;
    }
    pi_ram_write(&ram, ram_address, l2, SIZE);
}

int main(int count, char **arguments) {
    shim_configure(strcmp(arguments[2], "early") == 0 ? DMA_EARLY : DMA_LATE, count > 3 ? (uint32_t)atoi(arguments[3]) : 0);
    prepare();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (strcmp(cases[i].name, arguments[1]) == 0) {
            shim_begin_step("tested");
            cases[i].run();
            shim_end_step();
            shim_end_run();
            return 0;
        }
    }
    return 3;
}
