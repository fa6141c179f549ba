"""Lets a torchvision that was built for CUDA be imported beside a torch without it.

MCT, AIMET and the examples of Brevitas import torchvision, but call none of its operators here.
Its import registers shapes for two operators of a library that a torch for CPUs cannot load; once
they are declared, it works.
"""

from __future__ import annotations

import torch

OPERATORS = ("nms", "qnms")
_libraries: list[torch.library.Library] = []


def declare_torchvision_operators() -> None:
    """Declare them, once a process, where torchvision cannot do it by itself."""
    if _libraries or torch.cuda.is_available():
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    # A library that is collected takes its operators with it.
    _libraries.append(library)
