/* A convolution: operands of some px, their sums, their codes. */
static inline int @ID@(const layer *l, const @IN@ *restrict in, shape s, @OUT@ *restrict out, shape r,
                       unsigned char *scratch)
{
    const size_t length = l->blocks * BLOCK;
    @OPERAND@ *rows = (@OPERAND@ *)(void *)scratch;
    @SUM@ *sums = (@SUM@ *)(void *)(scratch + rounded_up(@LIMBCOUNT@ * TILE * length * sizeof *rows));
    int outside = 0;
    for (size_t n = 0; n < r.n; n++)
        for (size_t y = 0; y < r.h; y++)
            for (size_t x = 0; x < r.w; x += TILE) {
                const size_t px = r.w - x < TILE ? r.w - x : TILE;
                for (size_t g = 0; g < l->groups; g++) {
                    for (size_t t = 0; t < px; t++)
                        @GATHER@(l, in, s, n, g, y, x + t, rows + t * length);
                    @PRODUCTS@(l, rows, (const @WEIGHT@ *)l->weight + g * l->padded * length, px, sums);
                    for (size_t t = 0; t < px; t++)
                        outside |= @RESCALE@(l, sums + t * l->padded, g * l->outputs,
                                             out + ((n * r.h + y) * r.w + x + t) * r.c + g * l->outputs);
                }
            }
    return outside;
}
