/* CRC-32 of zlib, gzip and Ethernet. */
#ifndef CRC32_H
#define CRC32_H

#include <stdint.h>

/* The CRC of all that came before and of `data`; `crc` of what came before, 0 of nothing. */
uint32_t crc32_update(uint32_t crc, const void *data, uint32_t size);

#endif
