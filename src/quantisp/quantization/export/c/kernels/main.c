/* @NAME@ HEIGHT WIDTH INPUT OUTPUT [FOLDER]

   INPUT and OUTPUT are codes of 16 bits, little endian, (height, width, channels). With a FOLDER,
   each node's result goes into a file of its name there, as it lies in memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "@NAME@.h"

static int failed(const char *what, const char *which)
{
    fprintf(stderr, "@NAME@: %s %s\n", what, which);
    return 1;
}

static void dump(void *user, const char *node, const void *codes, int element_bytes, int is_signed,
                 int count, int channels, int height, int width)
{
    char path[4096];
    FILE *file;
    size_t total = (size_t)count * (size_t)channels * (size_t)height * (size_t)width;

    (void)is_signed;
    if (snprintf(path, sizeof path, "%s/%s", (const char *)user, node) >= (int)sizeof path)
        exit(failed("too long a path for", node));
    file = fopen(path, "wb");
    if (!file || fwrite(codes, (size_t)element_bytes, total, file) != total || fclose(file))
        exit(failed("cannot write", path));
}

static int read_codes(const char *path, uint16_t *codes, size_t count)
{
    FILE *file = fopen(path, "rb");
    unsigned char bytes[2];
    size_t i = 0;

    while (file && i < count && fread(bytes, 1, 2, file) == 2)
        codes[i++] = (uint16_t)(bytes[0] | (unsigned)bytes[1] << 8);
    return !file || i < count || fgetc(file) != EOF || fclose(file);
}

static int write_codes(const char *path, const uint16_t *codes, size_t count)
{
    FILE *file = fopen(path, "wb");

    for (size_t i = 0; file && i < count; i++) {
        unsigned char bytes[2] = {(unsigned char)(codes[i] & 255), (unsigned char)(codes[i] >> 8)};
        if (fwrite(bytes, 1, 2, file) != 2)
            return 1;
    }
    return !file || fclose(file);
}

int main(int count, char **words)
{
    size_t height, width, channels, out_height, out_width, inputs, outputs;
    uint16_t *input, *output;
    void *work;
    int code;

    if (count != 5 && count != 6)
        return failed("usage:", "HEIGHT WIDTH INPUT OUTPUT [FOLDER]");
    height = (size_t)strtoul(words[1], NULL, 10);
    width = (size_t)strtoul(words[2], NULL, 10);
    if (@NAME@_output_size(height, width, &channels, &out_height, &out_width))
        return failed("a size that the network does not run at; it needs", "@SIZES@");
    inputs = height * width * @NAMES@_INPUT_CHANNELS;
    outputs = channels * out_height * out_width;
    input = malloc(inputs * sizeof *input);
    output = malloc(outputs * sizeof *output);
    work = malloc(@NAME@_work_bytes(height, width));
    if (!input || !output || !work)
        return failed("not enough memory for", words[3]);
    if (read_codes(words[3], input, inputs))
        return failed("not exactly so many codes, or none, in", words[3]);
    code = @NAME@_run(input, height, width, output, work, count == 6 ? dump : NULL,
                      count == 6 ? words[5] : NULL);
    if (code)
        return failed("a sum does not fit its accumulator", "");
    if (write_codes(words[4], output, outputs))
        return failed("cannot write", words[4]);
    free(work);
    free(output);
    free(input);
    return 0;
}
