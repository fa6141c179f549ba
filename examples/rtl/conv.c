/* The layer of conv.v in C: reads the same files, and compares. Sizes and files are macros that
   run.py sets. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* One number a line, in two's complement of some width. */
static int64_t *read_hex(const char *path, size_t count, int bits, int is_signed)
{
    FILE *file = fopen(path, "r");
    int64_t *values = malloc(count * sizeof *values);
    unsigned long long word;

    for (size_t i = 0; i < count; i++) {
        if (!file || !values || fscanf(file, "%llx", &word) != 1) {
            fprintf(stderr, "cannot read %s\n", path);
            exit(1);
        }
        values[i] = (int64_t)word;
        if (is_signed && word >> (bits - 1) & 1)
            values[i] -= INT64_C(1) << bits;
    }
    fclose(file);
    return values;
}

static int64_t kept(int64_t sum)
{
    const int64_t high = (INT64_C(1) << (ACC_BITS - 1)) - 1, low = -high - 1;

    if (OVERFLOW == 1) {
        sum &= (INT64_C(1) << (ACC_BITS - 1)) * 2 - 1;
        return sum > high ? sum - 2 * (high + 1) : sum;
    }
    if (OVERFLOW == 2)
        return sum < low ? low : sum > high ? high : sum;
    return sum;
}

/* sum * multiplier / 2^shift, rounded once: down after a half is added. */
static int64_t rescaled(int64_t sum, int64_t multiplier, int64_t shift)
{
    const int64_t whole = INT64_C(1) << shift, lifted = sum * multiplier + whole / 2;
    const int64_t rounded = lifted / whole - (lifted % whole < 0);

    return rounded - (HALF_EVEN && lifted % whole == 0 && rounded % 2 != 0);
}

int main(void)
{
    const int CG = C / GROUPS, OG = O / GROUPS;
    const size_t count = (size_t)N * O * OH * OW;
    int64_t *in = read_hex(INPUT, (size_t)N * C * H * W, IN_BITS, IN_SIGNED);
    int64_t *weight = read_hex(WEIGHT, (size_t)O * CG * KH * KW, WEIGHT_BITS, 1);
    int64_t *bias = read_hex(BIAS, O, BIAS_BITS, 1);
    int64_t *multiplier = read_hex(MULTIPLIER, O, MULTIPLIER_BITS, 0);
    int64_t *shift = read_hex(SHIFT, O, 6, 0);
    int64_t *expected = read_hex(OUTPUT, count, OUT_BITS, LOW < 0);
    size_t at = 0, wrong = 0;

    for (int n = 0; n < N; n++)
        for (int o = 0; o < O; o++)
            for (int y = 0; y < OH; y++)
                for (int x = 0; x < OW; x++) {
                    int64_t sum = bias[o], code;
                    for (int i = 0; i < CG; i++)
                        for (int ky = 0; ky < KH; ky++)
                            for (int kx = 0; kx < KW; kx++) {
                                const int row = y * SY - PY + ky * DY, column = x * SX - PX + kx * DX;
                                if (row < 0 || row >= H || column < 0 || column >= W)
                                    continue;
                                sum += in[((n * C + o / OG * CG + i) * H + row) * W + column] *
                                       weight[((o * CG + i) * KH + ky) * KW + kx];
                            }
                    code = rescaled(kept(sum), multiplier[o], shift[o]);
                    code = code < LOW ? LOW : code > HIGH ? HIGH : code;
                    wrong += code != expected[at++];
                }
    if (wrong)
        printf("FAIL: %zu of %zu codes differ\n", wrong, at);
    else
        printf("PASS: %zu codes\n", at);
    free(expected);
    free(shift);
    free(multiplier);
    free(bias);
    free(weight);
    free(in);
    return wrong != 0;
}
