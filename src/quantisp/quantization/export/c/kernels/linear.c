/* A matrix product over the last axis. */
static inline int @ID@(const layer *l, const @IN@ *restrict in, shape s, @OUT@ *restrict out, shape r,
                       unsigned char *scratch)
{
    const size_t length = l->blocks * BLOCK;
    @OPERAND@ *rows = (@OPERAND@ *)(void *)scratch;
    @SUM@ *sums = (@SUM@ *)(void *)(scratch + rounded_up(@LIMBCOUNT@ * TILE * length * sizeof *rows));
    @OUT@ *codes = (@OUT@ *)(void *)((unsigned char *)sums + rounded_up(TILE * l->padded * sizeof *sums));
    int outside = 0;
    for (size_t n = 0; n < r.n; n++)
        for (size_t y = 0; y < r.h; y++)
            for (size_t c = 0; c < r.c; c++) {
                @GATHER@(l, in, s, n, c, y, 0, rows);
                @PRODUCTS@(l, rows, (const @WEIGHT@ *)l->weight, 1, sums);
                outside |= @RESCALE@(l, sums, 0, codes);
                for (size_t o = 0; o < l->outputs; o++)
                    out[((n * r.h + y) * r.w + o) * r.c + c] = codes[o];
            }
    return outside;
}
