/* value / 2^shift to the nearest integer, @TIES@; shift is 1 to @MOST@. Only numbers that are not
   negative are shifted. (Compilers are known to vectorise the same with an offset wrongly.) */
static inline int@BITS@_t rescaled@BITS@(int@BITS@_t value, uint@BITS@_t shift)
{
    const int@BITS@_t half = (int@BITS@_t)((uint@BITS@_t)1 << (shift - 1)), lifted = value + half;
    int@BITS@_t rounded = lifted < 0 ? ~(~lifted >> shift) : lifted >> shift;
@EVEN@    return rounded;
}
