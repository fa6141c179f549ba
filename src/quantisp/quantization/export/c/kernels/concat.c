/* One of the tensors that are joined, from some place of an axis on (n, c, h, w). */
static inline void @ID@(const @A@ *restrict a, shape s, @OUT@ *restrict out, shape r, size_t on, size_t oc,
                        size_t oy, size_t ox)
{
    for (size_t n = 0; n < s.n; n++)
        for (size_t y = 0; y < s.h; y++)
            for (size_t x = 0; x < s.w; x++) {
                @OUT@ *restrict to = out + (((n + on) * r.h + y + oy) * r.w + x + ox) * r.c + oc;
                for (size_t c = 0; c < s.c; c++)
                    to[c] = (@OUT@)*a++;
            }
}
