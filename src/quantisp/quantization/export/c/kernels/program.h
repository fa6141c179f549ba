/* @NAME@: an integer network. @ORIGIN@

   Made by quantisp, which defines the arithmetic. @VERIFIED@ */
#ifndef @NAMES@_H
#define @NAMES@_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define @NAMES@_INPUT_CHANNELS @IN_CHANNELS@
#define @NAMES@_INPUT_BITS @IN_BITS@
#define @NAMES@_OUTPUT_BITS @OUT_BITS@
#define @NAMES@_LAYERS @LAYERS@

/* What @NAME@_run returns. */
#define @NAMES@_OK 0
#define @NAMES@_BAD_SIZE 1 /* a size that the network does not run at: @SIZES@ */
#define @NAMES@_OVERFLOW 2 /* a sum does not fit the accumulator, and that is an error */

/* Called with each node's result as soon as it is there; nothing may be changed.
   codes: (count, height, width, channels), the last one fastest, of element_bytes each.
   Only numbers and pointers, so that simulators can have it (DPI). */
typedef void (*@NAME@_hook)(void *user, const char *node, const void *codes, int element_bytes,
                            int is_signed, int count, int channels, int height, int width);

/* The bytes of work memory for an input of that size; 0 for a size that there is not.
   @WORK@ */
size_t @NAME@_work_bytes(size_t height, size_t width);

/* The output's size; returns 0, or @NAMES@_BAD_SIZE. */
int @NAME@_output_size(size_t height, size_t width, size_t *channels, size_t *out_height,
                       size_t *out_width);

/* Run the network.
   input: codes from 0 to 2^@IN_BITS@ - 1, (height, width, channels); larger ones are limited.
   output: codes of @OUT_BITS@ bits@OUT_SIGN@, (height, width, channels) of @NAME@_output_size.
   work: so many bytes as @NAME@_work_bytes says, as malloc gives them (no alignment needed).
   hook: or NULL; user is handed to it. */
int @NAME@_run(const uint16_t *input, size_t height, size_t width, uint16_t *output, void *work,
               @NAME@_hook hook, void *user);

#ifdef __cplusplus
}
#endif

#endif
