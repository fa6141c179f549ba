"""Raw captures to study: inputs of which nobody knows the truth."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.cfa.balance import balanced
from quantisp.cfa.domains import to_domain
from quantisp.cfa.patterns import RGB
from quantisp.cfa.raw import read_raw
from quantisp.errors import ImageError
from quantisp.evaluation.degradation import Degradation

__all__ = ["REFERENCE", "Capture", "capture_samples", "of_captures", "samples_sha256"]

REFERENCE = (
    "the float network's output, for nobody knows the truth behind a raw file: how good the float "
    "network is, is not measured"
)


@dataclass(frozen=True, kw_only=True)
class Capture:
    """A raw file, and how a network meets it.

    Args:
        path: of the file.
        neutral: the camera's colour of a neutral surface.
        top, left: rows and columns that are left out, for the rest to begin in the network's phase.
        domain: of the samples that the network gets.
    """

    path: Path
    neutral: RGB
    top: int
    left: int
    domain: str


def capture_samples(capture: Capture, sha256: str | None = None) -> Float[Tensor, "1 1 h w"]:
    """What the network gets: levels, white balance, clipped at 1.

    Args:
        capture: the file.
        sha256: of the samples, as :func:`samples_sha256` found it before; None is not checked.

    Raises:
        ImageError: it cannot be read, or is not what it was.
    """
    samples = balanced(read_raw(capture.path), capture.neutral)[capture.top :, capture.left :]
    values = torch.from_numpy(np.ascontiguousarray(samples))[None, None]
    values = to_domain(capture.domain, values)
    if sha256 is not None and samples_sha256(values) != sha256:
        raise ImageError(
            f"expected {capture.path} as it was when the study began, it has changed: start the "
            "study again"
        )
    return values


def samples_sha256(samples: Float[Tensor, "1 1 h w"]) -> str:
    """The digest of what a network gets."""
    return hashlib.sha256(
        f"{tuple(samples.shape)}".encode() + samples.numpy().tobytes()
    ).hexdigest()


def of_captures(degradation: Degradation) -> Degradation:
    """The same network on raw files: ``degradation`` then only makes inputs to calibrate with."""
    return replace(
        degradation,
        name="raw files",
        sentence="raw files: black level, white balance (as shot, else grey world), clipped at "
        "white; outputs in the camera's balanced colours, coded by sRGB's curve, without a colour "
        f"matrix. To calibrate with: {degradation.sentence}",
    )
