"""What the machine at hand has instructions for."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["multiplies_bfloat16"]


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 are faster than those of float32 there.

    A CPU without instructions for them emulates them about ten times slower.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type != "cpu":
        return False
    # Releases of torch before 2.12 do not tell; float32 is right everywhere.
    tell = getattr(torch.cpu, "get_capabilities", dict)
    capabilities: dict[str, Any] = tell()
    return bool(capabilities.get("avx512_bf16")) or bool(capabilities.get("amx_bf16"))
