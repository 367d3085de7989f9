/* Files of the test program. Every function ends it with status 2 if the file is not what it should be. */
#ifndef FILES_H
#define FILES_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "pmsis.h"
#include "test_vectors.h"

typedef struct {
    FILE *stream;
    const char *name;
} file_t;

/* One test vector; `checksums` are those of the steps. */
typedef struct {
    char name[VECTOR_NAME_SIZE + 1];
    int32_t *logits;
    uint32_t *checksums;
} vector_t;

/* Copy weights.bin to L3. Returns its address there. */
uint32_t load_weights(const char *name, struct pi_device *ram);

file_t open_vectors(const char *name, vectors_header_t *header);

/* Read the next vector, and its window to `input`. */
vector_t read_vector(file_t *file, const vectors_header_t *header, void *input);

void discard_vector(vector_t *vector);

/* After the last vector. */
void close_vectors(file_t *file);

file_t create_file(const char *name);
void write_file(file_t *file, const void *data, size_t size);
void close_file(file_t *file);

/* Ends the program if there is none left. */
void *allocate(size_t size);

#endif
