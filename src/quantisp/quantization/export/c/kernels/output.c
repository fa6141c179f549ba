/* The network's output, 16 bits a code. */
static inline void @ID@(const @A@ *restrict a, uint16_t *restrict out, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (uint16_t)a[i];
}
