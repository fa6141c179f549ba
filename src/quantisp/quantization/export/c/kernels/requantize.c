/* Codes on another scale. */
static inline void @ID@(const @A@ *restrict a, @OUT@ *restrict out, size_t count, int@BITS@_t multiplier,
                        uint@BITS@_t shift, int@BITS@_t low, int@BITS@_t high)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (@OUT@)limited@BITS@(rescaled@BITS@(a[i] * multiplier, shift), low, high);
}
