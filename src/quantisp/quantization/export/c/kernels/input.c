/* The network's input: codes that are too large are limited. */
static inline void @ID@(const uint16_t *restrict a, @OUT@ *restrict out, size_t count, int32_t low, int32_t high)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (@OUT@)limited32(a[i], low, high);
}
