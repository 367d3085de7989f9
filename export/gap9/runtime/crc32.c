#include "crc32.h"

/* What 4 bits contribute: one table of a byte's 8 bits would take 1 KiB of L2. */
static const uint32_t contributions[16] = {
    0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
    0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
};

uint32_t crc32_update(uint32_t crc, const void *data, uint32_t size) {
    const uint8_t *byte = data;
    crc = ~crc;
    for (uint32_t i = 0; i < size; i++) {
        crc ^= byte[i];
        crc = (crc >> 4) ^ contributions[crc & 15];
        crc = (crc >> 4) ^ contributions[crc & 15];
    }
    return ~crc;
}
