/* The same where sums need more than 32 bits: in parts that do not, of operands in @LIMBS@ of bytes. */
static inline void @ID@(const layer *l, const @OPERAND@ *restrict rows, const @WEIGHT@ *restrict weight,
                        size_t px, int64_t *restrict sums)
{
    const size_t length = l->blocks * BLOCK, padded = l->padded;
    for (size_t o = 0; o < padded; o += 4) {
        const @WEIGHT@ *restrict w0 = weight + o * length, *restrict w1 = w0 + length;
        const @WEIGHT@ *restrict w2 = w1 + length, *restrict w3 = w2 + length;
        for (size_t t = 0; t < px; t++) {
            int64_t *restrict sum = sums + t * padded + o;
            sum[0] = sum[1] = sum[2] = sum[3] = 0;
            for (size_t limb = 0; limb < @LIMBCOUNT@; limb++) {
                const @OPERAND@ *restrict x = rows + (limb * TILE + t) * length;
                const int64_t by = limb ? 256 : 1;
                for (size_t block = 0; block < l->blocks; block += l->part) {
                    const size_t rest = l->blocks - block;
                    const size_t begin = block * BLOCK, count = (rest < l->part ? rest : l->part) * BLOCK;
                    int32_t a = 0, b = 0, c = 0, d = 0;
                    for (size_t k = 0; k < count; k++) {
                        a += (int32_t)x[begin + k] * w0[begin + k];
                        b += (int32_t)x[begin + k] * w1[begin + k];
                        c += (int32_t)x[begin + k] * w2[begin + k];
                        d += (int32_t)x[begin + k] * w3[begin + k];
                    }
                    sum[0] += by * a;
                    sum[1] += by * b;
                    sum[2] += by * c;
                    sum[3] += by * d;
                }
            }
        }
    }
}
