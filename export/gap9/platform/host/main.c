/* Test program: the network on test vectors, every step compared with the reference. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bsp/ram.h"
#include "files.h"
#include "instret.h"
#include "memories.h"
#include "network.h"
#include "options.h"
#include "results.h"
#include "shim.h"
#include "test_vectors.h"

static results_t results;

/* The run of one vector, as its observer fills it. */
static struct {
    outcome_t *outcome;
    cost_t *costs;
    file_t *dump; /* NULL without */
    int counting;
    uint64_t begun; /* instructions when the step began */
} run;

static void begin_step(int32_t step) {
    if (step < network.step_count) {
        shim_begin_step(network.steps[step].name);
        run.begun = instructions();
    }
}

static void dump_output(const network_step_t *step, const uint8_t *l2) {
    for (uint32_t row = 0; row < step->rows; row++) {
        write_file(run.dump, l2 + step->output + row * step->stride, step->row_bytes);
    }
}

static void observe(int32_t step, const network_step_t *what, const uint8_t *l2) {
    const uint64_t spent = instructions() - run.begun;
    shim_end_step();
    run.costs[step].traffic = *shim_traffic();
    run.costs[step].instructions = run.counting ? spent - shim_traffic()->instructions : 0;
    run.outcome->checksums[step] = output_checksum(what, l2);
    if (run.dump != NULL) {
        dump_output(what, l2);
    }
    begin_step(step + 1);
}

static outcome_t run_vector(vector_t expected, cost_t *costs, const char *dump_name) {
    outcome_t outcome = {
        .expected = expected,
        .checksums = allocate((size_t)network.step_count * sizeof(uint32_t)),
        .logits = allocate((size_t)logit_count() * sizeof(float)),
    };
    file_t dump = {0};
    if (dump_name != NULL) {
        dump = create_file(dump_name);
    }
    run.outcome = &outcome;
    run.costs = costs;
    run.dump = dump_name != NULL ? &dump : NULL;
    begin_step(0);
    network_run(observe);
    shim_end_run();
    if (dump_name != NULL) {
        close_file(&dump);
    }
    const size_t logits_size = (size_t)(network.output_rows * network.outputs) * sizeof(int32_t);
    outcome.logits_agree = memcmp(memories.l2 + network.output, expected.logits, logits_size) == 0;
    network_logits(memories.l2, outcome.logits);
    return outcome;
}

static void open_memories(const char *weights) {
    static struct pi_device cluster, ram;
    struct pi_default_ram_conf conf;
    pi_default_ram_conf_init(&conf);
    pi_open_from_conf(&ram, &conf);
    memories.l1 = pi_cl_l1_malloc(&cluster, (int)network.l1_size);
    memories.l2 = pi_l2_malloc((int)network.l2_size);
    if (memories.l1 == NULL || memories.l2 == NULL) {
        fprintf(stderr, "error: %lu bytes of L1 and %lu of L2 are more than the chip has\n",
                (unsigned long)network.l1_size, (unsigned long)network.l2_size);
        exit(2);
    }
    memories.ram = &ram;
    memories.weights = load_weights(weights, &ram);
}

static int is_wanted(const char *only, const char *name, uint32_t number) {
    char *end;
    if (only == NULL || strcmp(only, name) == 0) {
        return 1;
    }
    const unsigned long wanted = strtoul(only, &end, 10);
    return *only != '\0' && *end == '\0' && wanted == number;
}

static void run_vectors(const options_t *options) {
    vectors_header_t header;
    file_t file = open_vectors(options->vectors, &header);
    results.outcomes = allocate(header.vectors * sizeof(outcome_t));
    results.costs = allocate((size_t)network.step_count * sizeof(cost_t));
    for (uint32_t i = 0; i < header.vectors; i++) {
        shim_poison(memories.l2, network.l2_size);
        vector_t vector = read_vector(&file, &header, memories.l2 + network.input);
        if (is_wanted(options->only, vector.name, i)) {
            results.outcomes[results.count++] = run_vector(vector, results.costs, options->dump);
        } else {
            discard_vector(&vector);
        }
    }
    close_vectors(&file);
    if (results.count == 0) {
        fprintf(stderr, "error: %s: has no vector '%s'; give a name or number in it\n", options->vectors,
                options->only == NULL ? "" : options->only);
        exit(2);
    }
}

int main(int count, char **arguments) {
    const options_t options = parse_options(count, arguments);
    shim_configure(options.dma, options.shuffle);
    run.counting = options.count;
    open_memories(options.weights);
    run_vectors(&options);
    if (options.json) {
        print_json(&results);
    } else {
        print_table(&results, options.count);
    }
    return mismatches(&results) > 0;
}
