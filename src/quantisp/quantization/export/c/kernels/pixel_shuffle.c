/* Channels to f x f px. */
static inline void @ID@(const @A@ *restrict a, shape s, @OUT@ *restrict out, shape r, size_t f)
{
    for (size_t n = 0; n < r.n; n++)
        for (size_t y = 0; y < r.h; y++)
            for (size_t x = 0; x < r.w; x++) {
                const @A@ *restrict from = a + ((n * s.h + y / f) * s.w + x / f) * s.c + y % f * f + x % f;
                for (size_t c = 0; c < r.c; c++)
                    *out++ = (@OUT@)from[c * f * f];
            }
}
