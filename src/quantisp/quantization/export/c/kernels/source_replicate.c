static inline int64_t source_replicate(int64_t place, int64_t size)
{
    place = place < 0 ? 0 : place;
    return place < size ? place : size - 1;
}
