#include "bsp/fs.h"
