/* The board: weights from flash to L3, one inference to measure, then one per test vector, compared step by step with
 * the reference.
 *
 * weights.bin and vectors.bin are in the read-only file system of the flash. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "bsp/bsp.h"
#include "bsp/fs.h"
#include "bsp/fs/readfs.h"
#include "bsp/ram.h"
#include "crc32.h"
#include "memories.h"
#include "network.h"
#include "pmsis.h"
#include "test_vectors.h"

#define CLOCK 370000000u /* Hz, of the published figures */
#define CHUNK 16384u     /* of weights on their way through L2 */
#define LEADER_STACK 4096
#define WORKER_STACK 1024

static struct pi_device cluster, flash, files, ram;

static uint32_t cycles_of_all; /* steps of one inference */

/* Of the vector that is run; arrays have one entry per step. */
static uint32_t *checksums, *expected, *cycles;
static int32_t *expected_logits;
static float *logits;

static void fail(const char *what) {
    printf("error: %s\n", what);
    pmsis_exit(2);
}

static void *allocate(uint32_t size) {
    void *memory = pi_l2_malloc((int)size);
    if (memory == NULL) {
        fail("L2 is full");
    }
    return memory;
}

/* The external memories do not become faster with the cores: at a lower clock, waiting for them takes fewer cycles. */
static void set_clocks(void) {
    if (pi_freq_set(PI_FREQ_DOMAIN_FC, CLOCK) < 0 || pi_freq_set(PI_FREQ_DOMAIN_PERIPH, CLOCK) < 0 ||
        pi_freq_set(PI_FREQ_DOMAIN_CL, CLOCK) < 0) {
        fail("the clocks cannot be set");
    }
}

static void open_flash(void) {
    static struct pi_default_flash_conf flash_conf;
    static struct pi_readfs_conf files_conf;
    pi_default_flash_conf_init(&flash_conf);
    pi_open_from_conf(&flash, &flash_conf);
    if (pi_flash_open(&flash) != 0) {
        fail("the flash cannot be opened");
    }
    pi_readfs_conf_init(&files_conf);
    files_conf.fs.flash = &flash;
    pi_open_from_conf(&files, &files_conf);
    if (pi_fs_mount(&files) != 0) {
        fail("the file system of the flash cannot be mounted");
    }
}

static void open_memories(void) {
    static struct pi_default_ram_conf ram_conf;
    static struct pi_cluster_conf cluster_conf;
    pi_default_ram_conf_init(&ram_conf);
    pi_open_from_conf(&ram, &ram_conf);
    if (pi_ram_open(&ram) != 0 || pi_ram_alloc(&ram, &memories.weights, network.l3_size) != 0) {
        fail("the weights do not fit into L3");
    }
    pi_cluster_conf_init(&cluster_conf);
    cluster_conf.cc_stack_size = LEADER_STACK;
    pi_open_from_conf(&cluster, &cluster_conf);
    if (pi_cluster_open(&cluster) != 0) {
        fail("the cluster cannot be opened");
    }
    memories.ram = &ram;
    memories.l2 = allocate(network.l2_size);
    memories.l1 = pi_cl_l1_malloc(&cluster, (int)network.l1_size);
    if (memories.l1 == NULL) {
        fail("L1 is full");
    }
}

static pi_fs_file_t *open_file(const char *name) {
    pi_fs_file_t *file = pi_fs_open(&files, name, 0);
    if (file == NULL) {
        printf("%s: ", name);
        fail("not in the flash");
    }
    return file;
}

static void read_file(pi_fs_file_t *file, void *data, uint32_t size) {
    uint8_t *bytes = data;
    for (uint32_t done = 0, part; done < size; done += part) {
        part = size - done < CHUNK ? size - done : CHUNK;
        if (pi_fs_read(file, bytes + done, (int)part) != (int)part) {
            fail("a file in the flash is too short");
        }
    }
}

static void load_weights(void) {
    pi_fs_file_t *file = open_file("weights.bin");
    uint8_t *chunk = allocate(CHUNK);
    uint32_t checksum = 0;
    for (uint32_t done = 0, size; done < network.l3_size; done += size) {
        size = network.l3_size - done < CHUNK ? network.l3_size - done : CHUNK;
        read_file(file, chunk, size);
        checksum = crc32_update(checksum, chunk, size);
        pi_ram_write(&ram, memories.weights + done, chunk, size);
    }
    pi_fs_close(file);
    pi_l2_free(chunk, (int)CHUNK);
    if (checksum != network.weights_crc) {
        fail("weights.bin is not that of this network");
    }
}

static void restart_cycles(void) {
    pi_perf_reset();
    pi_perf_start();
}

static void observe(int32_t step, const network_step_t *what, const uint8_t *l2) {
    pi_perf_stop();
    cycles[step] = pi_perf_read(PI_PERF_CYCLES);
    checksums[step] = output_checksum(what, l2);
    restart_cycles();
}

static void on_cluster(void *argument) {
    (void)argument;
    restart_cycles();
    network_run(observe);
}

/* Without `observe`: while it looks at outputs, loads from L3 go on, so that cycles of steps add up to too few. Any
 * window will do. */
static void measure_on_cluster(void *argument) {
    (void)argument;
    pi_perf_conf(1u << PI_PERF_CYCLES);
    restart_cycles();
    network_run(NULL);
    pi_perf_stop();
    cycles_of_all = pi_perf_read(PI_PERF_CYCLES);
}

static void send_to_cluster(void (*entry)(void *)) {
    static struct pi_cluster_task task;
    pi_cluster_task(&task, entry, NULL);
    task.slave_stack_size = WORKER_STACK;
    pi_cluster_send_task_to_cl(&cluster, &task);
}

static void print_result(void) {
    const int32_t frames = network.target_length > 0 ? network.target_length : network.output_rows;
    const int32_t count = frames * network.outputs;
    int32_t largest = 0;
    network_logits(memories.l2, logits);
    for (int32_t i = 0; i < count; i++) {
        largest = logits[i] > logits[largest] ? i : largest;
        printf("%s%f", i > 0 ? " " : "  logits: ", (double)logits[i]);
    }
    printf("\n");
    if (frames == 1) {
        printf("  class: %s\n", network.labels[largest]);
    }
}

/* Returns the number of steps that differ from the reference. */
static int32_t run_vector(pi_fs_file_t *file, const vectors_header_t *header) {
    char name[VECTOR_NAME_SIZE + 1] = {0};
    int32_t wrong = 0;
    read_file(file, name, VECTOR_NAME_SIZE);
    read_file(file, memories.l2 + network.input, header->input_size);
    read_file(file, expected_logits, header->logits_size);
    read_file(file, expected, header->steps * (uint32_t)sizeof *expected);
    send_to_cluster(on_cluster);
    for (int32_t step = 0; step < network.step_count; step++) {
        const int differs = checksums[step] != expected[step];
        printf("  %-32s %10lu cycles%s\n", network.steps[step].name, (unsigned long)cycles[step],
               differs ? "  DIFFERS" : "");
        wrong += differs;
    }
    printf("%s: mismatches: %ld\n", name, (long)wrong);
    print_result();
    return wrong;
}

int main(void) {
    vectors_header_t header;
    int32_t wrong = 0;
    open_flash();
    open_memories();
    set_clocks();
    load_weights();
    send_to_cluster(measure_on_cluster);
    printf("one inference: %lu cycles at %lu MHz\n", (unsigned long)cycles_of_all, (unsigned long)(CLOCK / 1000000));
    pi_fs_file_t *file = open_file("vectors.bin");
    read_file(file, &header, sizeof header);
    const char *problem = vectors_problem(&header);
    if (problem != NULL) {
        fail(problem);
    }
    const uint32_t steps_size = header.steps * (uint32_t)sizeof(uint32_t);
    const int32_t frames = network.target_length > 0 ? network.target_length : network.output_rows;
    checksums = allocate(steps_size);
    expected = allocate(steps_size);
    cycles = allocate(steps_size);
    expected_logits = allocate(header.logits_size);
    logits = allocate((uint32_t)(frames * network.outputs) * (uint32_t)sizeof(float));
    for (uint32_t i = 0; i < header.vectors; i++) {
        wrong += run_vector(file, &header);
    }
    pi_fs_close(file);
    printf("mismatches: %ld\n", (long)wrong);
    pmsis_exit(wrong > 0);
    return 0;
}
