"""Folders of integer networks as models: found, checked, and run like any other network."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import torch
from torch import nn

from quantisp.errors import ModelError, SettingError
from quantisp.inference import Interface, ReceptiveField, receptive_field
from quantisp.models import LoadedModel, Origin, build_structure
from quantisp.quantization import PadsInside
from quantisp.quantization.graph.extents import Axis, reach_px, stride_px
from quantisp.quantization.integer import (
    DOCUMENT,
    IntegerExecutor,
    load_integer_network,
    network_content,
)

__all__ = ["check_place", "field_of", "holds_integers", "load_integers"]


def holds_integers(path: str | Path) -> bool:
    """Whether a path is the folder of an integer network, or the document in it."""
    folder = Path(path)
    return folder.name == DOCUMENT or (folder.is_dir() and (folder / DOCUMENT).is_file())


def load_integers(path: Path) -> LoadedModel:
    """Read the folder of an integer network, ready to run on pictures of any size.

    Raises:
        ModelError: damaged, written without what says which mosaics it takes, or of a network
            whose own way to lengthen its input only its code knows.
    """
    network = load_integer_network(path)
    texts = network.origin
    if "preset" not in texts:
        raise ModelError(
            f"expected an integer network that says what it was made of, {path} was written by an "
            "earlier quantisp: write it again with `quantisp quantize`"
        )
    origin = Origin.from_texts(path, texts)
    executor = IntegerExecutor(network, _padding(path, origin, texts.get("pads_inside")))
    executor.pattern = origin.pattern
    # What tells it from other integer networks: it has no parameters.
    digest = hashlib.sha256(network_content(network)).digest()
    executor.register_buffer("content", torch.tensor(list(digest), dtype=torch.uint8))
    folder = path.parent if path.name == DOCUMENT else path
    return LoadedModel(
        name=folder.resolve().name,
        model=executor.eval(),
        pattern=origin.pattern,
        provenance=origin.provenance,
        float_sha256=texts.get("float_sha256"),
    )


def _padding(path: Path, origin: Origin, pads_inside: str | None) -> nn.Module | None:
    """What lengthens an input to sizes that the graph takes; None where nothing does."""
    if pads_inside != "yes":
        return None
    if ":" in origin.preset or origin.pattern is None:
        raise ModelError(
            f"expected an integer network that runs without other code, {path} was made of "
            f"{origin.preset}, which lengthens its input in its own way: run it in Python as "
            "IntegerExecutor(network, padding=...)"
        )
    structure = build_structure(origin.preset, origin.pattern)
    return structure if isinstance(structure, PadsInside) else None


def field_of(model: nn.Module, interface: Interface) -> ReceptiveField | None:
    """As :func:`quantisp.inference.receptive_field`; of integer networks by their graph."""
    if not isinstance(model, IntegerExecutor):
        return receptive_field(model, interface)
    network = model.integers
    shapes = {
        node.layer or "": tuple(weights.codes.shape) for node, _, weights, _ in network.layers()
    }
    rows, columns = (
        Axis(graph=network.graph, kernels=shapes, across=across) for across in (False, True)
    )
    stride = math.lcm(stride_px(network.graph, shapes), *interface.period)
    try:
        above, below = reach_px(rows, stride)
        left, right = reach_px(columns, stride)
    except ModelError:
        return None
    return ReceptiveField(
        above_px=above, below_px=below, left_px=left, right_px=right, stride_px=stride
    )


def check_place(model: nn.Module, place: torch.device, asked: str) -> None:
    """Refuse a device that was asked for and that integers do not run on.

    Raises:
        SettingError: not the CPU.
    """
    if isinstance(model, IntegerExecutor) and asked != "auto" and place.type != "cpu":
        raise SettingError(
            f"expected the CPU for an integer network, found {place.type}: pass --device cpu"
        )
