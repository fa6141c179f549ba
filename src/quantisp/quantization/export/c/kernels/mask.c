/* Zeros where a tile that repeats has them. */
static inline void @ID@(const @A@ *restrict a, shape s, @OUT@ *restrict out, shape r, const uint8_t *restrict tile,
                        size_t channels, size_t height, size_t width)
{
    for (size_t n = 0; n < r.n; n++)
        for (size_t y = 0; y < r.h; y++)
            for (size_t x = 0; x < r.w; x++) {
                const @A@ *restrict from = a + ((n * s.h + y) * s.w + x) * s.c;
                const uint8_t *restrict on = tile + (y % height * width + x % width) * channels;
                for (size_t c = 0; c < r.c; c++)
                    *out++ = (@OUT@)(on[channels > 1 ? c : 0] ? from[s.c > 1 ? c : 0] : 0);
            }
}
