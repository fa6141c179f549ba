/* The last axis at one place, as a row of operands. */
static inline void @ID@(const layer *l, const @IN@ *restrict in, shape s, size_t n, size_t group,
                        size_t y, size_t x, @OPERAND@ *restrict row)
{
    /* group is the channel here; values along the axis are s.c apart. */
    const @IN@ *restrict from = in + ((n * s.h + y) * s.w + x) * s.c + group;
    for (size_t i = 0; i < l->inputs; i++) {
        @STORETAIL@
    }
    for (size_t i = l->inputs; i < l->blocks * BLOCK; i++) {
        @CLEARTAIL@
    }
}
