#include "pmsis.h"
#include "shim_internal.h"

#define WORKERS 8
#define LEADER 8 /* the ninth core, which runs the task itself */

static uint32_t core = LEADER;

uint32_t pi_core_id(void) {
    return core;
}

static uint32_t random_below(uint32_t limit) {
    shim.seed = shim.seed * 1664525u + 1013904223u;
    return (shim.seed >> 16) % limit;
}

void pi_cl_team_fork(int cores, void (*entry)(void *), void *arg) {
    uint32_t order[WORKERS];
    if (cores != WORKERS) {
        shim_fail("a team of %d cores; the cluster has %d", cores, WORKERS);
    }
    if (core != LEADER) {
        shim_fail("core %lu, itself of a team, starts another one", (unsigned long)core);
    }
    for (uint32_t i = 0; i < WORKERS; i++) {
        const uint32_t place = shim.seed == 0 ? i : random_below(i + 1);
        order[i] = order[place];
        order[place] = i;
    }
    for (uint32_t i = 0; i < WORKERS; i++) {
        core = order[i];
        entry(arg);
    }
    core = LEADER;
}

void pi_cluster_conf_init(struct pi_cluster_conf *conf) {
    *conf = (struct pi_cluster_conf){0};
}

int pi_cluster_open(struct pi_device *device) {
    (void)device;
    return 0;
}

struct pi_cluster_task *pi_cluster_task(struct pi_cluster_task *task, void (*entry)(void *), void *arg) {
    *task = (struct pi_cluster_task){.entry = entry, .arg = arg};
    return task;
}

int pi_cluster_send_task_to_cl(struct pi_device *device, struct pi_cluster_task *task) {
    (void)device;
    task->entry(task->arg);
    return 0;
}

void pi_perf_conf(unsigned int events) {
    (void)events;
}

void pi_perf_reset(void) {
}

void pi_perf_start(void) {
}

void pi_perf_stop(void) {
}

unsigned int pi_perf_read(int event) {
    (void)event;
    return 0;
}
