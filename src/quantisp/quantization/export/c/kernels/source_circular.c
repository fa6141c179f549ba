static inline int64_t source_circular(int64_t place, int64_t size)
{
    return (place % size + size) % size;
}
