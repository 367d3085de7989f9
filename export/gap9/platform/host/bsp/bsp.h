/* The board: memories and files around the chip. */
#ifndef BSP_BSP_H
#define BSP_BSP_H

#include "bsp/fs.h"
#include "bsp/ram.h"
#include "pmsis.h"

#endif
