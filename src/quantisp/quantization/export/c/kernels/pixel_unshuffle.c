/* f x f px to channels. */
static inline void @ID@(const @A@ *restrict a, shape s, @OUT@ *restrict out, shape r, size_t f)
{
    for (size_t n = 0; n < r.n; n++)
        for (size_t y = 0; y < r.h; y++)
            for (size_t x = 0; x < r.w; x++)
                for (size_t c = 0; c < s.c; c++)
                    for (size_t dy = 0; dy < f; dy++)
                        for (size_t dx = 0; dx < f; dx++)
                            *out++ = (@OUT@)a[((n * s.h + y * f + dy) * s.w + x * f + dx) * s.c + c];
}
