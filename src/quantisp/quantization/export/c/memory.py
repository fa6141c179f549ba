"""Where tensors lie in the work memory: slots, used again when nobody needs what is in them."""

from __future__ import annotations

from collections.abc import Mapping

from quantisp.quantization.graph.nodes import Graph

__all__ = ["assign_slots"]


def assign_slots(graph: Graph, sizes: Mapping[str, int]) -> Mapping[str, int]:
    """A slot for each node's tensor.

    A tensor gets the free slot whose size is nearest to its own, so that large ones share.

    Args:
        graph: of the network.
        sizes: of the tensors in bytes, for a picture of some size; any other is right, too.
    """
    last = graph.last_uses()
    free: list[int] = []
    held: list[int] = []
    found: dict[str, int] = {}
    for node in graph.nodes:
        size = sizes[node.name]
        if free:
            slot = min(free, key=lambda slot: (abs(held[slot] - size), slot))
            free.remove(slot)
            held[slot] = max(held[slot], size)
        else:
            slot = len(held)
            held.append(size)
        found[node.name] = slot
        # What nobody ever needs is free at once, but for the output.
        unused = node.name not in {name for other in graph.nodes for name in other.inputs}
        done = (*last[node.name], *([node.name] if unused and node.name != graph.output else []))
        free += [found[name] for name in done]
    return found
