#include "@NAME@.h"

#include "@NAME@_kernels.h"
#include "@NAME@_weights.h"

#define NODES @NODES@
#define SLOTS @SLOTS@
#define SCRATCH @SCRATCH@

@LAYERTABLE@
/* The shapes of all tensors, and what padding and slices work out to; 0 for a size that there is
   not. */
static int shapes(size_t rows, size_t columns, shape s[NODES], int64_t p[NODES][4])
{
    const int64_t height = (int64_t)rows, width = (int64_t)columns;

    if (rows < 1 || columns < 1 || rows > 1 << 24 || columns > 1 << 24)
        return 0;
    memset(p, 0, NODES * sizeof p[0]);
@SHAPES@
    return 1;
}

/* Where slots begin in the work memory; returns where they end. */
static size_t layout(const shape s[NODES], size_t at[SLOTS])
{
    static const uint8_t element_bytes[NODES] = {@BYTES@};
    static const uint16_t slots[NODES] = {@SLOTOF@};
    size_t bytes[SLOTS] = {0}, end = 0;

    for (size_t i = 0; i < NODES; i++) {
        const size_t own = elements(s[i]) * element_bytes[i];
        if (own > bytes[slots[i]])
            bytes[slots[i]] = own;
    }
    for (size_t i = 0; i < SLOTS; i++) {
        at[i] = end;
        end += rounded_up(bytes[i]);
    }
    return end;
}

static void show(@NAME@_hook hook, void *user, const char *node, const void *codes, int element_bytes,
                 int is_signed, shape s)
{
    if (hook)
        hook(user, node, codes, element_bytes, is_signed, (int)s.n, (int)s.c, (int)s.h, (int)s.w);
}

size_t @NAME@_work_bytes(size_t height, size_t width)
{
    shape s[NODES];
    int64_t p[NODES][4];
    size_t at[SLOTS];

    return shapes(height, width, s, p) ? layout(s, at) + SCRATCH + ALIGNMENT : 0;
}

int @NAME@_output_size(size_t height, size_t width, size_t *channels, size_t *out_height,
                       size_t *out_width)
{
    shape s[NODES];
    int64_t p[NODES][4];

    if (!shapes(height, width, s, p))
        return @NAMES@_BAD_SIZE;
    *channels = s[@OUTPUT@].n * s[@OUTPUT@].c;
    *out_height = s[@OUTPUT@].h;
    *out_width = s[@OUTPUT@].w;
    return @NAMES@_OK;
}

int @NAME@_run(const uint16_t *input, size_t height, size_t width, uint16_t *output, void *work,
               @NAME@_hook hook, void *user)
{
    shape s[NODES];
    int64_t p[NODES][4];
    size_t at[SLOTS];

    if (!shapes(height, width, s, p))
        return @NAMES@_BAD_SIZE;
    unsigned char *memory = (unsigned char *)work;
    memory += (ALIGNMENT - (size_t)((uintptr_t)memory % ALIGNMENT)) % ALIGNMENT;
    unsigned char *scratch = memory + layout(s, at);
    (void)scratch;
@CALLS@
    return @NAMES@_OK;
}
