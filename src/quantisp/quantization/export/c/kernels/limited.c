static inline int@BITS@_t limited@BITS@(int@BITS@_t value, int@BITS@_t low, int@BITS@_t high)
{
    value = value < low ? low : value;
    return value > high ? high : value;
}
