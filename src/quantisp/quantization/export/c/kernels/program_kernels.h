/* @NAME@: kernels. Codes are stored as (n, h, w, c), channels last. */
#ifndef @NAMES@_KERNELS_H
#define @NAMES@_KERNELS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* px whose sums are made at once, and operands to whole multiples of which rows are filled up. */
#define TILE @TILE@
#define BLOCK @BLOCK@
#define ALIGNMENT @ALIGNMENT@

/* Weights of 8 bits are kept in 16 where processors multiply those and no bytes. The results are
   the same; -DNARROW_WEIGHTS halves the memory for them. */
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(NARROW_WEIGHTS)
typedef uint8_t byte_operand;
typedef int8_t byte_weight;
#else
typedef int16_t byte_operand;
typedef int16_t byte_weight;
#endif

typedef struct {
    size_t n, c, h, w;
} shape;

typedef struct {
    const void *weight;      /* group, output, then the rows of BLOCK * blocks operands */
    const int32_t *bias;     /* one of the two */
    const int64_t *wide_bias;
    const int32_t *multiplier;
    const uint8_t *shift;
    size_t inputs, outputs;  /* of one group */
    size_t groups, blocks;
    size_t padded;           /* outputs, to a multiple of 4 */
    size_t part;             /* blocks that are added up in 32 bits */
    size_t kernel[2], stride[2];
    int64_t padding[2];
    size_t dilation[2];
    int32_t low, high;
    int64_t least, greatest; /* of an accumulator that may overflow */
    uint64_t mask;
} layer;

static inline size_t elements(shape s)
{
    return s.n * s.c * s.h * s.w;
}

static inline int same(shape a, shape b)
{
    return a.n == b.n && a.c == b.c && a.h == b.h && a.w == b.w;
}

/* Whether a shape is one: at least one of everything, and no more than 2^40 numbers. */
static inline int sized(shape *s, int64_t n, int64_t c, int64_t h, int64_t w)
{
    const int64_t sizes[4] = {n, c, h, w}, most = INT64_C(1) << 40;
    int64_t total = 1;
    for (int i = 0; i < 4; i++) {
        if (sizes[i] < 1 || sizes[i] > most / total)
            return 0;
        total *= sizes[i];
    }
    s->n = (size_t)n;
    s->c = (size_t)c;
    s->h = (size_t)h;
    s->w = (size_t)w;
    return (uint64_t)total <= SIZE_MAX / 16;
}

static inline size_t rounded_up(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static inline int64_t floored(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static inline int64_t greater(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t less(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* An end of a part: counted from the end where it is negative. */
static inline int64_t bounded(int64_t place, int64_t size)
{
    return less(greater(place < 0 ? place + size : place, 0), size);
}

@KERNELS@
#endif
