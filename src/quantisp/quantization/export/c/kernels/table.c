/* A function of each code. */
static inline void @ID@(const @A@ *restrict a, @OUT@ *restrict out, size_t count, const @OUT@ *restrict table,
                        int32_t low)
{
    for (size_t i = 0; i < count; i++)
        out[i] = table[a[i] - low];
}
