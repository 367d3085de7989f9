#include "results.h"

#include <inttypes.h>
#include <stdio.h>

#include "network.h"

int32_t logit_count(void) {
    return (network.target_length > 0 ? network.target_length : network.output_rows) * network.outputs;
}

static int agrees(const outcome_t *outcome, int32_t step) {
    return outcome->checksums[step] == outcome->expected.checksums[step];
}

static int32_t mismatches_of(const results_t *results, int32_t step, const char **first) {
    int32_t count = 0;
    *first = "";
    for (int32_t i = results->count - 1; i >= 0; i--) {
        if (!agrees(&results->outcomes[i], step)) {
            *first = results->outcomes[i].expected.name;
            count++;
        }
    }
    return count;
}

static int32_t wrong_logits(const results_t *results) {
    int32_t count = 0;
    for (int32_t i = 0; i < results->count; i++) {
        count += !results->outcomes[i].logits_agree;
    }
    return count;
}

int32_t mismatches(const results_t *results) {
    int32_t count = wrong_logits(results);
    const char *first;
    for (int32_t step = 0; step < network.step_count; step++) {
        count += mismatches_of(results, step, &first);
    }
    return count;
}

void print_table(const results_t *results, int with_instructions) {
    printf("%-32s %10s %10s %9s %10s%s  %s\n", "step", "read", "written", "transfers", "mismatches",
           with_instructions ? "  instructions" : "", "first in");
    for (int32_t step = 0; step < network.step_count; step++) {
        const cost_t *cost = &results->costs[step];
        const char *first;
        const int32_t wrong = mismatches_of(results, step, &first);
        printf("%-32s %10" PRIu64 " %10" PRIu64 " %9" PRIu64 " %10" PRId32, network.steps[step].name,
               cost->traffic.read, cost->traffic.written, cost->traffic.transfers, wrong);
        if (with_instructions) {
            printf(" %13" PRIu64, cost->instructions);
        }
        printf("  %s\n", first);
    }
    printf("vectors: %" PRId32 ", wrong logits: %" PRId32 "\n", results->count, wrong_logits(results));
    printf("mismatches: %" PRId32 "\n", mismatches(results));
}

static void print_string(const char *text) {
    putchar('"');
    for (; *text != '\0'; text++) {
        const unsigned char character = (unsigned char)*text;
        if (character == '"' || character == '\\') {
            printf("\\%c", character);
        } else if (character < ' ') {
            printf("\\u%04x", character);
        } else {
            putchar(character);
        }
    }
    putchar('"');
}

static void print_vector(const outcome_t *outcome) {
    printf("{\"name\": ");
    print_string(outcome->expected.name);
    printf(", \"logits_ok\": %s, \"logits\": [", outcome->logits_agree ? "true" : "false");
    for (int32_t i = 0; i < logit_count(); i++) {
        printf("%s%.9g", i > 0 ? ", " : "", (double)outcome->logits[i]);
    }
    printf("],\n  \"steps\": [");
    for (int32_t step = 0; step < network.step_count; step++) {
        printf("%s{\"crc\": %" PRIu32 ", \"ok\": %s}", step > 0 ? ", " : "", outcome->checksums[step],
               agrees(outcome, step) ? "true" : "false");
    }
    printf("]}");
}

static void print_cost(const char *name, const cost_t *cost) {
    printf("{\"name\": ");
    print_string(name);
    printf(", \"read\": %" PRIu64 ", \"written\": %" PRIu64 ", \"transfers\": %" PRIu64 ", \"streamed\": %" PRIu64
           ", \"instructions\": %" PRIu64 "}",
           cost->traffic.read, cost->traffic.written, cost->traffic.transfers, cost->traffic.streamed,
           cost->instructions);
}

void print_json(const results_t *results) {
    printf("{\"mismatches\": %" PRId32 ",\n \"steps\": [", mismatches(results));
    for (int32_t step = 0; step < network.step_count; step++) {
        printf("%s", step > 0 ? ",\n  " : "");
        print_cost(network.steps[step].name, &results->costs[step]);
    }
    printf("],\n \"vectors\": [");
    for (int32_t i = 0; i < results->count; i++) {
        printf("%s", i > 0 ? ",\n  " : "");
        print_vector(&results->outcomes[i]);
    }
    printf("]}\n");
}
