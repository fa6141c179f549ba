"""The operations that a program may have: what image networks are made of, and nothing that
reaches beyond tensors, such as files.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["OPERATIONS", "SIZE_OPERATIONS", "UNNEEDED"]

_POINTWISE = """
abs abs_ add add_ ceil clamp clamp_ clamp_max clamp_min cos div div_ elu elu_ erf exp floor gelu
glu hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ leaky_relu leaky_relu_ log
log1p log2 maximum minimum mish mish_ mul mul_ neg pow prelu _prelu_kernel reciprocal relu relu_
relu6 relu6_ remainder round rsqrt selu sigmoid sigmoid_ sign silu silu_ sin softplus sqrt square
sub sub_ tanh tanh_ where rsub sgn trunc eq ne lt le gt ge logical_and logical_or logical_not
bitwise_and bitwise_or bitwise_not lerp addcmul addcdiv dropout dropout_ feature_dropout
"""
_SHAPES = """
alias as_strided cat channel_shuffle chunk clone constant_pad_nd contiguous copy detach detach_
expand expand_as flatten flip gather identity index index_select lift_fresh_copy movedim narrow
numpy_T pad pixel_shuffle pixel_unshuffle permute reflection_pad2d repeat repeat_interleave
replication_pad2d reshape roll select slice split split_with_sizes squeeze stack sym_size t tile
to _to_copy transpose tril triu type_as unbind unflatten unfold unsqueeze view view_as _unsafe_view
_unsafe_index narrow_copy broadcast_to im2col col2im
"""
_SUMS = """
adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d amax amin argmax argmin avg_pool2d
cumsum max max_pool2d max_pool2d_with_indices mean min norm linalg_vector_norm prod std sum var
var_mean softmax _softmax log_softmax any all
"""
_PRODUCTS = """
addmm baddbmm bmm conv2d conv_transpose2d convolution einsum linear matmul mm
scaled_dot_product_attention batch_norm _native_batch_norm_legit_no_training group_norm
native_group_norm instance_norm layer_norm native_layer_norm grid_sampler grid_sampler_2d
"""
_SIZES = """
upsample_bilinear2d upsample_bicubic2d upsample_nearest2d _upsample_bilinear2d_aa
_upsample_bicubic2d_aa _upsample_nearest_exact2d
"""
_NEW = """
arange empty_like full full_like linspace new_full new_ones new_zeros ones ones_like scalar_tensor
zeros zeros_like meshgrid
"""
OPERATIONS = frozenset(" ".join((_POINTWISE, _SHAPES, _SUMS, _PRODUCTS, _SIZES, _NEW)).split())
# On sizes, which are plain numbers while the network runs.
SIZE_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "_operator.add": operator.add,
    "_operator.sub": operator.sub,
    "_operator.mul": operator.mul,
    "_operator.floordiv": operator.floordiv,
    "_operator.truediv": operator.truediv,
    "_operator.mod": operator.mod,
    "_operator.neg": operator.neg,
    "torch.sym_max": torch.sym_max,
    "torch.sym_min": torch.sym_min,
    "torch.sym_float": torch.sym_float,
    "torch.sym_int": torch.sym_int,
}
# Checks that the program makes of itself; its input's sizes are checked before it runs.
UNNEEDED = frozenset(
    {
        "_assert_scalar.default",
        "_assert_tensor_metadata.default",
        "sym_constrain_range.default",
        "sym_constrain_range_for_size.default",
        "_operator.eq",
        "_operator.ne",
        "_operator.ge",
        "_operator.gt",
        "_operator.le",
        "_operator.lt",
    }
)
