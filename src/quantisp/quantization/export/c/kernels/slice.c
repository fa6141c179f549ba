/* A part: from some place of an axis on, every so many. */
static inline void @ID@(const @A@ *restrict a, shape s, @OUT@ *restrict out, shape r, size_t axis, size_t start,
                        size_t step)
{
    const size_t sn = axis == 0 ? step : 1, sc = axis == 1 ? step : 1, sy = axis == 2 ? step : 1;
    const size_t sx = axis == 3 ? step : 1, on = axis == 0 ? start : 0, oc = axis == 1 ? start : 0;
    const size_t oy = axis == 2 ? start : 0, ox = axis == 3 ? start : 0;
    for (size_t n = 0; n < r.n; n++)
        for (size_t y = 0; y < r.h; y++)
            for (size_t x = 0; x < r.w; x++) {
                const @A@ *restrict from = a + (((n * sn + on) * s.h + y * sy + oy) * s.w + x * sx + ox) * s.c + oc;
                for (size_t c = 0; c < r.c; c++)
                    *out++ = (@OUT@)from[c * sc];
            }
}
