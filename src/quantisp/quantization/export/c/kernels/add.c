/* A sum or a difference of codes of two scales. */
static inline void @ID@(const @A@ *restrict a, const @B@ *restrict b, @OUT@ *restrict out, size_t count,
                        int@BITS@_t first, int@BITS@_t second, uint@BITS@_t shift, int@BITS@_t low, int@BITS@_t high)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (@OUT@)limited@BITS@(rescaled@BITS@(a[i] * first + b[i] * second, shift), low, high);
}
