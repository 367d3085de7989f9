/* PMSIS on any machine: the names and signatures of the GAP SDK that the network uses, checked where the chip is not.
 *
 * L1 and L2 have their real sizes, transfers their real limits. What a board would forgive or hang on is an error here:
 * see shim.h.
 */
#ifndef PMSIS_H
#define PMSIS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct pi_device {
    void *config;
    void *data;
};

void pi_open_from_conf(struct pi_device *device, void *conf);
void pmsis_exit(int code);

/* Memory. NULL when the level is full. */
void *pi_l2_malloc(int size);
void pi_l2_free(void *memory, int size);
void *pi_cl_l1_malloc(struct pi_device *device, int size);

/* Cluster. */
struct pi_cluster_conf {
    int id;
    int cc_stack_size;
};

struct pi_cluster_task {
    void (*entry)(void *);
    void *arg;
    int stack_size, slave_stack_size;
};

void pi_cluster_conf_init(struct pi_cluster_conf *conf);
int pi_cluster_open(struct pi_device *device);
struct pi_cluster_task *pi_cluster_task(struct pi_cluster_task *task, void (*entry)(void *), void *arg);
int pi_cluster_send_task_to_cl(struct pi_device *device, struct pi_cluster_task *task);
void pi_cl_team_fork(int cores, void (*entry)(void *), void *arg);
uint32_t pi_core_id(void);

/* DMA of the cluster, between L2 (external) and L1 (local). */
typedef enum { PI_CL_DMA_DIR_LOC2EXT = 0, PI_CL_DMA_DIR_EXT2LOC = 1 } pi_cl_dma_dir_e;

typedef struct {
    uint32_t ext, loc;
    uint32_t id;
    uint32_t size; /* the chip's field has 16 bits */
    pi_cl_dma_dir_e dir;
    uint8_t merge;
    uint32_t stride, length; /* in L2, of the 2D variant; the chip's fields have 16 bits */
} pi_cl_dma_copy_t;

void pi_cl_dma_memcpy(pi_cl_dma_copy_t *copy);
void pi_cl_dma_memcpy_2d(pi_cl_dma_copy_t *copy);
void pi_cl_dma_wait(void *copy);

/* Clocks, in Hz. */
typedef enum { PI_FREQ_DOMAIN_FC = 0, PI_FREQ_DOMAIN_CL = 1, PI_FREQ_DOMAIN_PERIPH = 2 } pi_freq_domain_e;

int pi_freq_set(pi_freq_domain_e domain, uint32_t hertz);

/* Cycles. */
enum { PI_PERF_CYCLES = 0 };

void pi_perf_conf(unsigned int events);
void pi_perf_reset(void);
void pi_perf_start(void);
void pi_perf_stop(void);
unsigned int pi_perf_read(int event);

#endif
