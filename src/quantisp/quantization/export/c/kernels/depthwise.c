/* A convolution of each channel with a kernel of its own. */
static inline int @ID@(const layer *l, const @IN@ *restrict in, shape s, @OUT@ *restrict out, shape r,
                       unsigned char *scratch)
{
    const size_t channels = r.c;
    @SUM@ *restrict sums = (@SUM@ *)(void *)scratch;
    int outside = 0;
    for (size_t n = 0; n < r.n; n++)
        for (size_t y = 0; y < r.h; y++)
            for (size_t x = 0; x < r.w; x++) {
                const @WEIGHT@ *restrict weight = (const @WEIGHT@ *)l->weight;
                for (size_t c = 0; c < channels; c++)
                    sums[c] = 0;
                for (size_t ky = 0; ky < l->kernel[0]; ky++) {
                    @ROW@
                    for (size_t kx = 0; kx < l->kernel[1]; kx++, weight += channels) {
                        @COLUMN@
                        if (!above || !left)
                            continue;
                        const @IN@ *restrict from = in + ((n * s.h + from_y) * s.w + from_x) * channels;
                        for (size_t c = 0; c < channels; c++)
                            sums[c] += (@SUM@)from[c] * weight[c];
                    }
                }
                outside |= @RESCALE@(l, sums, 0, out + ((n * r.h + y) * r.w + x) * channels);
            }
    return outside;
}
