#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: network WEIGHTS VECTORS [--dma late|early] [--shuffle SEED] [--only VECTOR] [--dump FILE] [--count] [--json]\n"
    "\n"
    "Runs the network on test vectors and compares the output of every step with the reference.\n"
    "\n"
    "  --dma late|early  when transfers move their bytes: when they are waited for (default), or at once\n"
    "  --shuffle SEED    run the cores in another order every time; 0 (default): in theirs\n"
    "  --only VECTOR     name or number (from 0) of the only vector to run\n"
    "  --dump FILE       write the outputs of all steps of that vector, one after the other\n"
    "  --count           count instructions per step (RISC-V under QEMU with -icount shift=0, else 0)\n"
    "  --json            print one JSON object\n"
    "\n"
    "Exit status: 0 if all agree, 1 if not, 2 if something else is wrong.\n";

static void refuse(const char *what, const char *argument) {
    fprintf(stderr, "error: %s '%s'\n\n%s", what, argument, usage);
    exit(2);
}

static dma_mode_t parse_dma(const char *value) {
    if (strcmp(value, "late") != 0 && strcmp(value, "early") != 0) {
        refuse("--dma is late or early, not", value);
    }
    return strcmp(value, "late") == 0 ? DMA_LATE : DMA_EARLY;
}

static uint32_t parse_seed(const char *value) {
    char *end;
    const unsigned long seed = strtoul(value, &end, 10);
    if (*value == '\0' || *end != '\0') {
        refuse("--shuffle is a number, not", value);
    }
    return (uint32_t)seed;
}

/* Whether `argument` needs the one behind it. */
static int takes_value(const char *argument) {
    static const char *const names[] = {"--dma", "--shuffle", "--dump", "--only"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(argument, names[i]) == 0) {
            return 1;
        }
    }
    return 0;
}

static void set_value(options_t *options, const char *name, const char *value) {
    if (strcmp(name, "--dma") == 0) {
        options->dma = parse_dma(value);
    } else if (strcmp(name, "--shuffle") == 0) {
        options->shuffle = parse_seed(value);
    } else if (strcmp(name, "--dump") == 0) {
        options->dump = value;
    } else {
        options->only = value;
    }
}

static void set_flag(options_t *options, const char *argument) {
    if (strcmp(argument, "--count") == 0) {
        options->count = 1;
    } else if (strcmp(argument, "--json") == 0) {
        options->json = 1;
    } else if (argument[0] == '-') {
        refuse("unknown option", argument);
    } else if (options->weights == NULL) {
        options->weights = argument;
    } else if (options->vectors == NULL) {
        options->vectors = argument;
    } else {
        refuse("one argument too many:", argument);
    }
}

options_t parse_options(int count, char **arguments) {
    options_t options = {.dma = DMA_LATE};
    for (int i = 1; i < count; i++) {
        if (!takes_value(arguments[i])) {
            set_flag(&options, arguments[i]);
        } else if (i + 1 < count) {
            set_value(&options, arguments[i], arguments[i + 1]);
            i++;
        } else {
            refuse("nothing follows", arguments[i]);
        }
    }
    if (options.vectors == NULL) {
        refuse("missing file:", options.weights == NULL ? "WEIGHTS" : "VECTORS");
    }
    if (options.dump != NULL && options.only == NULL) {
        refuse("--dump needs --only, file", options.dump);
    }
    return options;
}
