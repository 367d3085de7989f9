/* Vectors of a computer (SSE2, NEON), which make packed products there ten times as fast as word by word. Both gcc and
 * clang have these types; the bits are the same. */
#ifndef VECTORS_H
#define VECTORS_H

#if defined(__SSE2__) || defined(__ARM_NEON)
#define HAVE_VECTORS

#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

typedef int16_t halves_t __attribute__((vector_size(16)));
typedef uint16_t unsigned_halves_t __attribute__((vector_size(16)));
typedef int32_t words_t __attribute__((vector_size(16)));
typedef uint32_t unsigned_words_t __attribute__((vector_size(16)));

/* Packed weights: 4 k of each of 4 outputs. */
static inline words_t load_weights(const int8_t *from) {
    words_t words;
    memcpy(&words, from, sizeof words);
    return words;
}

/* The same 4 k of a row for each of 4 outputs. */
static inline words_t load_inputs(const int8_t *from) {
    int32_t word;
    memcpy(&word, from, sizeof word);
    return (words_t){word, word, word, word};
}

/* Second of two int8, and first, in 16 bits. */
static inline halves_t upper(words_t words) { return (halves_t)words >> 8; }
static inline halves_t lower(words_t words) { return (halves_t)((unsigned_halves_t)words << 8) >> 8; }

/* Products of pairs of int16, added up. */
static inline words_t dot_halves(halves_t x, halves_t w) {
#ifdef __SSE2__
    return (words_t)_mm_madd_epi16((__m128i)x, (__m128i)w);
#else
    const words_t first = ((words_t)((unsigned_words_t)x << 16) >> 16) * ((words_t)((unsigned_words_t)w << 16) >> 16);
    return first + ((words_t)x >> 16) * ((words_t)w >> 16);
#endif
}

/* The 4 products of every output, added to its sum. */
static inline words_t dot_words(words_t x, words_t w, words_t sums) {
    return sums + dot_halves(lower(x), lower(w)) + dot_halves(upper(x), upper(w));
}

#endif

#endif
