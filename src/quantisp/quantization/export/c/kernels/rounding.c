/* value / 2^shift to the nearest integer, @TIES@; shift is 1 to @MOST@. The middle of the
   unsigned range stands for 0, so that the shift to the right is that of a number without sign. */
static inline int@BITS@_t rescaled@BITS@(int@BITS@_t value, uint@BITS@_t shift)
{
    const uint@BITS@_t zero = (uint@BITS@_t)1 << @TOP@, half = (uint@BITS@_t)1 << (shift - 1);
    const uint@BITS@_t lifted = (uint@BITS@_t)value + zero;
    uint@BITS@_t rounded = (lifted + half) >> shift;
@EVEN@    return (int@BITS@_t)rounded - (int@BITS@_t)(zero >> shift);
}
