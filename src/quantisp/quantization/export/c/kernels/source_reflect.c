static inline int64_t source_reflect(int64_t place, int64_t size)
{
    place = place < 0 ? -place : place;
    return place < size ? place : 2 * (size - 1) - place;
}
