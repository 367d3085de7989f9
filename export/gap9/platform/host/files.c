#include "files.h"

#include <stdarg.h>
#include <stdlib.h>

#include "bsp/ram.h"
#include "crc32.h"

#define CHUNK 65536u

static void fail(const char *name, const char *format, ...) {
    va_list arguments;
    fprintf(stderr, "error: %s: ", name);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

void *allocate(size_t size) {
    void *memory = malloc(size);
    if (memory == NULL) {
        fail("memory", "%lu bytes are not to be had", (unsigned long)size);
    }
    return memory;
}

static file_t open_file(const char *name) {
    const file_t file = {fopen(name, "rb"), name};
    if (file.stream == NULL) {
        fail(name, "cannot be opened; give the path of a file that was exported with this network");
    }
    return file;
}

static void read_file(file_t *file, void *data, size_t size) {
    const size_t got = fread(data, 1, size, file->stream);
    if (got != size) {
        fail(file->name, "ends %lu bytes too early; export the model again", (unsigned long)(size - got));
    }
}

static void expect_end(file_t *file) {
    if (fgetc(file->stream) != EOF) {
        fail(file->name, "is longer than it should be; use the file that was exported with this network");
    }
    fclose(file->stream);
}

uint32_t load_weights(const char *name, struct pi_device *ram) {
    file_t file = open_file(name);
    uint8_t *buffer = allocate(CHUNK);
    uint32_t address, checksum = 0;
    if (pi_ram_alloc(ram, &address, network.l3_size) != 0) {
        fail(name, "%lu bytes do not fit into L3", (unsigned long)network.l3_size);
    }
    for (uint32_t done = 0, size; done < network.l3_size; done += size) {
        size = network.l3_size - done < CHUNK ? network.l3_size - done : CHUNK;
        read_file(&file, buffer, size);
        checksum = crc32_update(checksum, buffer, size);
        pi_ram_write(ram, address + done, buffer, size);
    }
    expect_end(&file);
    free(buffer);
    if (checksum != network.weights_crc) {
        fail(name, "CRC-32 is %08lx, that of the network %08lx; use the file that was exported with it",
             (unsigned long)checksum, (unsigned long)network.weights_crc);
    }
    return address;
}

file_t open_vectors(const char *name, vectors_header_t *header) {
    file_t file = open_file(name);
    read_file(&file, header, sizeof *header);
    const char *problem = vectors_problem(header);
    if (problem != NULL) {
        fail(name, "%s", problem);
    }
    return file;
}

vector_t read_vector(file_t *file, const vectors_header_t *header, void *input) {
    vector_t vector = {
        .logits = allocate(header->logits_size),
        .checksums = allocate(header->steps * sizeof(uint32_t)),
    };
    read_file(file, vector.name, VECTOR_NAME_SIZE);
    read_file(file, input, header->input_size);
    read_file(file, vector.logits, header->logits_size);
    read_file(file, vector.checksums, header->steps * sizeof(uint32_t));
    return vector;
}

void discard_vector(vector_t *vector) {
    free(vector->logits);
    free(vector->checksums);
}

void close_vectors(file_t *file) {
    expect_end(file);
}

file_t create_file(const char *name) {
    const file_t file = {fopen(name, "wb"), name};
    if (file.stream == NULL) {
        fail(name, "cannot be written");
    }
    return file;
}

void write_file(file_t *file, const void *data, size_t size) {
    if (fwrite(data, 1, size, file->stream) != size) {
        fail(file->name, "cannot be written; is the disk full?");
    }
}

void close_file(file_t *file) {
    if (fclose(file->stream) != 0) {
        fail(file->name, "cannot be written; is the disk full?");
    }
}
