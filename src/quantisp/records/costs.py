"""What a network costs in hardware, as plain data; ``docs/costs.md`` defines each figure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["CostSheet", "TensorCost"]


@dataclass(frozen=True, kw_only=True)
class TensorCost:
    """A tensor that is stored, and the operation that computes it.

    Args:
        name: of the tensor.
        layer: whose weights it uses; None for sums, products, tables and the input.
        kind: of the operation, such as ``Conv``.
        macs: multiply-accumulates of a frame.
        bops: bit operations of a frame: weight bits times input bits of each of them.
        weight_bits, input_bits, output_bits: widths; None is float32.
        weight_bytes: packed codes and a float32 for each scale; 0 where an earlier one has them.
        channels: of the tensor.
        rows: of it that wait in its line buffer.
        buffer_bytes: of that line buffer.
        map_bytes: of the whole tensor.
        readers: how many operations take it.
        mac_energy_pj, mac_area_um2: an estimate of one multiply-accumulate in 45 nm; 0 where there
            is none.
    """

    name: str
    layer: str | None
    kind: str
    macs: int
    bops: int
    weight_bits: int | None
    input_bits: int | None
    output_bits: int | None
    weight_bytes: int
    channels: int
    rows: int
    buffer_bytes: int
    map_bytes: int
    readers: int
    mac_energy_pj: float
    mac_area_um2: float


@dataclass(frozen=True, kw_only=True)
class CostSheet:
    """A network on frames of one size.

    Args:
        height, width: of the input in px, in whole folds of the network.
        output_px: of the output.
        latency_rows: of the input that have to come before the output's first row.
        tensors: in the order of the graph: the input first.
        outputs: the names of the tensors that the output is read from.
    """

    height: int
    width: int
    output_px: int
    latency_rows: int
    tensors: tuple[TensorCost, ...]
    outputs: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Of a frame."""
        return sum(tensor.macs for tensor in self.tensors)

    @property
    def bops(self) -> int:
        """Of a frame."""
        return sum(tensor.bops for tensor in self.tensors)

    @property
    def weight_bytes(self) -> int:
        """Of all layers."""
        return sum(tensor.weight_bytes for tensor in self.tensors)

    @property
    def buffer_bytes(self) -> int:
        """Of all line buffers."""
        return sum(tensor.buffer_bytes for tensor in self.tensors)

    @property
    def input_bytes(self) -> int:
        """Of a frame that goes in."""
        return self.tensors[0].map_bytes

    @property
    def output_bytes(self) -> int:
        """Of a frame that comes out."""
        return sum(t.map_bytes for t in self.tensors if t.name in self.outputs)

    @property
    def streamed_bytes(self) -> int:
        """To and from memory for a frame where line buffers are on the chip."""
        return self.weight_bytes + self.input_bytes + self.output_bytes

    @property
    def stored_bytes(self) -> int:
        """The same where every tensor goes to memory, and comes back for each reader."""
        moved = sum(t.map_bytes * ((i > 0) + t.readers) for i, t in enumerate(self.tensors))
        return self.weight_bytes + moved

    @property
    def energy_mj(self) -> float:
        """Of all multiply-accumulates of a frame."""
        return sum(tensor.macs * tensor.mac_energy_pj for tensor in self.tensors) * 1e-9

    @property
    def mac_area_um2(self) -> float:
        """Of one unit that is wide enough for every layer."""
        return max(tensor.mac_area_um2 for tensor in self.tensors)

    def totals(self) -> dict[str, Any]:
        """What is said of the whole network."""
        return {
            "height": self.height,
            "width": self.width,
            "macs": self.macs,
            "macs_per_px": self.macs / self.output_px,
            "bops": self.bops,
            "bops_per_px": self.bops / self.output_px,
            "weight_bytes": self.weight_bytes,
            "line_buffer_bytes": self.buffer_bytes,
            "latency_rows": self.latency_rows,
            "input_bytes": self.input_bytes,
            "output_bytes": self.output_bytes,
            "streamed_bytes": self.streamed_bytes,
            "stored_bytes": self.stored_bytes,
            "mac_energy_mj": self.energy_mj,
            "mac_area_um2": self.mac_area_um2,
        }

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the totals, and each tensor."""
        return {**self.totals(), "tensors": [asdict(tensor) for tensor in self.tensors]}
