/* What the kernel of a convolution covers at one px, as a row of operands. */
static inline void @ID@(const layer *l, const @IN@ *restrict in, shape s, size_t n, size_t group,
                        size_t y, size_t x, @OPERAND@ *restrict row)
{
    const size_t inputs = l->inputs, whole = inputs * l->groups;
    size_t k = 0;
    for (size_t ky = 0; ky < l->kernel[0]; ky++) {
        @ROW@
        for (size_t kx = 0; kx < l->kernel[1]; kx++, k += inputs) {
            @COLUMN@
            if (above && left) {
                const @IN@ *restrict from = in + ((n * s.h + from_y) * s.w + from_x) * whole + group * inputs;
                for (size_t i = 0; i < inputs; i++) {
                    @STORE@
                }
            } else {
                for (size_t i = 0; i < inputs; i++) {
                    @CLEAR@
                }
            }
        }
    }
    for (size_t i = l->inputs * l->kernel[0] * l->kernel[1]; i < l->blocks * BLOCK; i++) {
        @CLEARTAIL@
    }
}
