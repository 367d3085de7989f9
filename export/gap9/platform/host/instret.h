/* Instructions executed so far: on RISC-V exact under `qemu-system-riscv32 -icount shift=0`, elsewhere always 0. */
#ifndef INSTRET_H
#define INSTRET_H

#include <stdint.h>

static inline uint64_t instructions(void) {
#if defined(__riscv) && __riscv_xlen == 32
    uint32_t high, low, again;
    do { /* until the low half did not overflow in between */
        __asm__ volatile("rdinstreth %0" : "=r"(high));
        __asm__ volatile("rdinstret %0" : "=r"(low));
        __asm__ volatile("rdinstreth %0" : "=r"(again));
    } while (high != again);
    return (uint64_t)high << 32 | low;
#else
    return 0;
#endif
}

#endif
