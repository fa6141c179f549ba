/* The axes in another order; each step is what one along an axis of the result (n, c, h, w) is here. */
static inline void @ID@(const @A@ *restrict a, shape s, @OUT@ *restrict out, shape r, size_t n_axis, size_t c_axis,
                        size_t h_axis, size_t w_axis)
{
    const size_t steps[4] = {s.h * s.w * s.c, 1, s.w * s.c, s.c};
    for (size_t n = 0; n < r.n; n++)
        for (size_t y = 0; y < r.h; y++)
            for (size_t x = 0; x < r.w; x++) {
                const @A@ *restrict from = a + n * steps[n_axis] + y * steps[h_axis] + x * steps[w_axis];
                for (size_t c = 0; c < r.c; c++)
                    *out++ = (@OUT@)from[c * steps[c_axis]];
            }
}
