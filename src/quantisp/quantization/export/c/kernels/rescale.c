/* Sums and biases to codes. */
static inline int @ID@(const layer *l, const @SUM@ *restrict sums, size_t first, @OUT@ *restrict out)
{
    const @BIAS@ *restrict bias = l->@BIASES@ + first;
    const int32_t *restrict multiplier = l->multiplier + first;
    const uint8_t *restrict shift = l->shift + first;
    const size_t count = l->outputs;
    const int@BITS@_t low = l->low, high = l->high;
    int outside = 0;
    for (size_t o = 0; o < count; o++) {
        @EXACTTYPE@ exact = (@EXACTTYPE@)sums[o] + (@EXACTTYPE@)bias[o];
@LIMIT@        const int@BITS@_t scaled = (int@BITS@_t)exact * (int@BITS@_t)multiplier[o];
        out[o] = (@OUT@)limited@BITS@(rescaled@BITS@(scaled, shift[o]), low, high);
    }
    return outside;
}
