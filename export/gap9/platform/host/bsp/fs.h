/* Files in flash: here those of the working directory. */
#ifndef BSP_FS_H
#define BSP_FS_H

#include "pmsis.h"

struct pi_default_flash_conf {
    int reserved;
};

struct pi_fs_conf {
    struct pi_device *flash;
};

typedef struct {
    uint32_t size;
    void *data;
} pi_fs_file_t;

void pi_default_flash_conf_init(struct pi_default_flash_conf *conf);
int pi_flash_open(struct pi_device *device);
int pi_fs_mount(struct pi_device *device);
pi_fs_file_t *pi_fs_open(struct pi_device *device, const char *name, int flags);
int pi_fs_read(pi_fs_file_t *file, void *data, int size);
void pi_fs_close(pi_fs_file_t *file);

#endif
