/* Each output's sum of products for some px. No sum leaves 32 bits: the weights prove it. */
static inline void @ID@(const layer *l, const @OPERAND@ *restrict rows, const @WEIGHT@ *restrict weight,
                        size_t px, int32_t *restrict sums)
{
    const size_t length = l->blocks * BLOCK, padded = l->padded;
    for (size_t o = 0; o < padded; o += 4) {
        const @WEIGHT@ *restrict w0 = weight + o * length, *restrict w1 = w0 + length;
        const @WEIGHT@ *restrict w2 = w1 + length, *restrict w3 = w2 + length;
        for (size_t t = 0; t < px; t++) {
            const @OPERAND@ *restrict x = rows + t * length;
            int32_t a = 0, b = 0, c = 0, d = 0;
            for (size_t k = 0; k < length; k++) {
                a += (int32_t)x[k] * w0[k];
                b += (int32_t)x[k] * w1[k];
                c += (int32_t)x[k] * w2[k];
                d += (int32_t)x[k] * w3[k];
            }
            int32_t *restrict sum = sums + t * padded + o;
            sum[0] = a;
            sum[1] = b;
            sum[2] = c;
            sum[3] = d;
        }
    }
}
