#include <stdlib.h>
#include <string.h>

#include "bsp/bsp.h"
#include "bsp/fs/readfs.h"
#include "shim_internal.h"

#define RAM_SIZE (32u * 1024 * 1024)
#define RAM_START 0x1000 /* no network may take for granted that its weights lie at 0 */

static uint8_t *ram;
static uint32_t ram_size;

void pi_open_from_conf(struct pi_device *device, void *conf) {
    device->config = conf;
}

void pmsis_exit(int code) {
    exit(code);
}

int pi_freq_set(pi_freq_domain_e domain, uint32_t hertz) {
    (void)domain, (void)hertz;
    return 0;
}

void pi_default_ram_conf_init(struct pi_default_ram_conf *conf) {
    *conf = (struct pi_default_ram_conf){0};
}

int pi_ram_open(struct pi_device *device) {
    (void)device;
    return 0;
}

int pi_ram_alloc(struct pi_device *device, uint32_t *address, uint32_t size) {
    (void)device;
    if (ram != NULL || size == 0 || size > RAM_SIZE) { /* the network needs one piece */
        return -1;
    }
    ram = malloc(size);
    if (ram == NULL) {
        return -1;
    }
    shim_poison(ram, size);
    ram_size = size;
    *address = RAM_START;
    return 0;
}

uint8_t *shim_ram(uint32_t address, uint32_t size) {
    const uint32_t offset = address - RAM_START;
    if (size == 0 || offset >= ram_size || size > ram_size - offset) {
        shim_fail("%lu bytes at L3 address 0x%08lx were not allocated", (unsigned long)size, (unsigned long)address);
    }
    return ram + offset;
}

void pi_ram_write(struct pi_device *device, uint32_t address, void *data, uint32_t size) {
    (void)device;
    memcpy(shim_ram(address, size), data, size);
}

void pi_default_flash_conf_init(struct pi_default_flash_conf *conf) {
    *conf = (struct pi_default_flash_conf){0};
}

int pi_flash_open(struct pi_device *device) {
    (void)device;
    return 0;
}

void pi_readfs_conf_init(struct pi_readfs_conf *conf) {
    *conf = (struct pi_readfs_conf){0};
}

int pi_fs_mount(struct pi_device *device) {
    (void)device;
    return 0;
}

pi_fs_file_t *pi_fs_open(struct pi_device *device, const char *name, int flags) {
    FILE *stream = fopen(name, "rb");
    (void)device, (void)flags;
    if (stream == NULL) {
        return NULL;
    }
    pi_fs_file_t *file = malloc(sizeof *file);
    if (file == NULL || fseek(stream, 0, SEEK_END) != 0) {
        fclose(stream);
        free(file);
        return NULL;
    }
    *file = (pi_fs_file_t){.size = (uint32_t)ftell(stream), .data = stream};
    rewind(stream);
    return file;
}

int pi_fs_read(pi_fs_file_t *file, void *data, int size) {
    return (int)fread(data, 1, (size_t)size, file->data);
}

void pi_fs_close(pi_fs_file_t *file) {
    fclose(file->data);
    free(file);
}
