"""The inputs that a program was exported for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import SymInt, Tensor, nn

from quantisp.errors import ModelError

__all__ = ["UNBOUNDED", "InputSize", "SizeRule"]

UNBOUNDED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class SizeRule:
    """What one dimension of the input may be.

    Args:
        symbol: dimensions of one symbol are equal, but for ``multiple``; empty where fixed.
        multiple: of which it must be one.
        least, most: inclusive.
    """

    symbol: str
    multiple: int
    least: int
    most: int

    def allows(self, size: int | SymInt) -> bool:
        """Whether the dimension may be ``size``, which is a symbol while a program is captured."""
        return bool(self.least <= size <= self.most and size % self.multiple == 0)

    def nearest(self, size: int) -> int:
        """The size nearest to this one that the dimension may have."""
        least, most = -(-self.least // self.multiple), self.most // self.multiple
        return self.multiple * min(max(size // self.multiple, least), most)

    def __str__(self) -> str:
        if self.least == self.most:
            return str(self.least)
        most = "" if self.most == UNBOUNDED else f" to {self.most}"
        steps = f" in steps of {self.multiple}" if self.multiple > 1 else ""
        return f"{self.least}{most or ' or more'}{steps}"


class InputSize(nn.Module):
    """Passes inputs of the sizes that a program was exported for, and refuses others.

    Args:
        rules: one for each of (n, c, h, w).
    """

    def __init__(self, rules: Sequence[SizeRule]) -> None:
        super().__init__()
        self.rules = tuple(rules)

    @property
    def fixed_sizes(self) -> tuple[int | None, ...]:
        """The dimensions that can have one size only; None for others."""
        return tuple(rule.least if rule.least == rule.most else None for rule in self.rules)

    @property
    def largest_batch(self) -> int:
        """How many pictures it takes at once, at most."""
        return self.rules[0].most

    def size_near(self, px: int) -> tuple[int, int]:
        """A height and a width that it takes, near this many px."""
        height, width = self.rules[2:]
        rows, columns = height.nearest(px), width.nearest(px)
        if height.symbol and height.symbol == width.symbol:
            columns = rows // height.multiple * width.multiple
        return rows, columns

    def forward(self, picture: Float[Tensor, "*sizes"]) -> Float[Tensor, "*sizes"]:
        """The input as it is.

        Raises:
            ModelError: the program was not exported for its size.
        """
        sizes = tuple(picture.shape)
        units: dict[str, int | SymInt] = {}
        fits = len(sizes) == len(self.rules)
        for rule, size in zip(self.rules, sizes, strict=False):
            unit = units.setdefault(rule.symbol or str(id(rule)), size // rule.multiple)
            fits = fits and rule.allows(size) and unit == size // rule.multiple
        if not fits:
            allowed = ", ".join(str(rule) for rule in self.rules)
            raise ModelError(
                f"expected an input of the sizes that the program was exported for ({allowed}), "
                f"found {tuple(_shown(size) for size in sizes)}: {self._mend(sizes)}"
            )
        return picture

    def _mend(self, sizes: tuple[int | SymInt, ...]) -> str:
        if len(sizes) == len(self.rules) and not self.rules[0].allows(sizes[0]):
            return "export it with a batch of 1, or with a Dim for dimension 0, the batch"
        return "export it with dynamic_shapes, or choose other pictures"


def _shown(size: int | SymInt) -> int:
    """A size; that of the example, of a symbol in a capture."""
    return size.node.hint if isinstance(size, SymInt) else size
