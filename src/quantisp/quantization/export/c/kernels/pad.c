/* More px around. */
static inline void @ID@(const @A@ *restrict a, shape s, @OUT@ *restrict out, shape r, int64_t left, int64_t top)
{
    for (size_t n = 0; n < r.n; n++)
        for (size_t y = 0; y < r.h; y++)
            for (size_t x = 0; x < r.w; x++) {
                const int64_t from_y = source_@MODE@((int64_t)y - top, (int64_t)s.h);
                const int64_t from_x = source_@MODE@((int64_t)x - left, (int64_t)s.w);
                const int inside = from_y >= 0 && from_y < (int64_t)s.h && from_x >= 0 && from_x < (int64_t)s.w;
                const @A@ *restrict from = inside ? a + ((n * s.h + (size_t)from_y) * s.w + (size_t)from_x) * s.c : a;
                for (size_t c = 0; c < r.c; c++)
                    *out++ = (@OUT@)(inside ? from[c] : 0);
            }
}
