#include <stddef.h>

#include "memories.h"
#include "network.h"

/* Loads from L3 under way at the same time; one more waits for the oldest. */
#define LOADS 4

memories_t memories;

/* Slabs are loaded and waited for in the order of the table. */
typedef struct {
    pi_cl_ram_req_t requests[LOADS];
    int32_t issued, arrived;
} loads_t;

static void wait_until(loads_t *loads, int32_t arrived) {
    for (; loads->arrived < arrived; loads->arrived++) {
        pi_cl_ram_read_wait(&loads->requests[loads->arrived % LOADS]);
    }
}

static void issue(loads_t *loads) {
    const slab_t *slab = &network.slabs[loads->issued];
    wait_until(loads, loads->issued + 1 - LOADS); /* whose request is used again */
    pi_cl_ram_read(memories.ram, memories.weights + slab->l3, memories.l2 + slab->l2, slab->size,
                   &loads->requests[loads->issued % LOADS]);
    loads->issued++;
}

void network_run(observer_t observer) {
    loads_t loads = {0};
    for (int32_t i = 0; i < network.step_count; i++) {
        const network_step_t *step = &network.steps[i];
        while (loads.issued < network.slab_count && network.slabs[loads.issued].issued_at <= i) {
            issue(&loads);
        }
        wait_until(&loads, step->slab + 1);
        step->run(step->step);
        if (observer != NULL) {
            observer(i, step, memories.l2);
        }
    }
}
