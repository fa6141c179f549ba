"""The processes that train one model together: one, or several on one or many machines."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from quantisp.errors import SettingError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Workers", "is_first_process", "start_workers"]


def is_first_process() -> bool:
    """Whether this process is the one that writes, told before any worker is started."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def start_workers(device: torch.device, *, devices: int = 1, nodes: int = 1) -> Workers:
    """Start one process a device, by Lightning Fabric, unless ``torchrun`` has already.

    Without torchrun this runs the command of this process again for every further device.

    Args:
        device: the kind of device, and for a single worker which one.
        devices: how many on this machine.
        nodes: how many machines; more than one need torchrun or its like on each.
    Raises:
        SettingError: fewer than one, more than there are, or other numbers than torchrun's.
    """
    if devices < 1 or nodes < 1:
        raise SettingError(
            f"expected at least 1 device and 1 node, found {devices} and {nodes}: correct them"
        )
    if "WORLD_SIZE" in os.environ and "LOCAL_WORLD_SIZE" in os.environ:
        here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        if devices not in (1, here):
            raise SettingError(
                f"torchrun started {here} processes here, --devices asks for {devices}: "
                "leave --devices out"
            )
        if nodes not in (1, everywhere // here):
            raise SettingError(
                f"torchrun started {everywhere // here} machines, --nodes asks for {nodes}: "
                "leave --nodes out"
            )
        devices, nodes = here, everywhere // here
    elif nodes > 1 and "LOCAL_RANK" not in os.environ:
        raise SettingError(
            f"expected torchrun, or a launcher like it, on each of {nodes} machines, found none: "
            "start `torchrun --nnodes ... -m quantisp.cli.main train ...` there"
        )
    if devices * nodes == 1:
        return Workers(device)
    if device.type == "cuda" and devices > torch.cuda.device_count():
        raise SettingError(
            f"expected at most {torch.cuda.device_count()} devices (there are no more here), "
            f"found {devices}: correct --devices"
        )
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator=device.type, devices=devices, num_nodes=nodes, strategy="ddp")
    fabric.launch()
    return Workers(fabric.device, fabric)


def compiled_model(model: nn.Module) -> nn.Module:
    """``model`` by way of torch.compile: the parts that repeat, if it has such, else as a whole.

    A part that a network repeats, and that has a method ``compile_repeated``, is compiled once; the
    whole network takes minutes.
    """
    parts = [part for part in model.modules() if hasattr(part, "compile_repeated")]
    for part in parts:
        cast("Callable[[], None]", part.compile_repeated)()
    return model if parts else cast("nn.Module", torch.compile(model))


class Workers:
    """What one of the processes knows of all of them.

    Args:
        device: where this one computes.
        fabric: launched, or None for a process that trains alone.
    """

    def __init__(self, device: torch.device | str = "cpu", fabric: Fabric | None = None) -> None:
        self.device = torch.device(device)
        self._fabric = fabric
        self.rank = 0 if fabric is None else fabric.global_rank
        self.count = 1 if fabric is None else fabric.world_size

    def shared(self, model: nn.Module, *, compiled: bool) -> nn.Module:
        """``model``, whose gradients are the means over all processes after ``backward``."""
        trained = compiled_model(model) if compiled else model
        if self._fabric is None:
            return trained
        return self._fabric.setup_module(trained, move_to_device=False)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes."""
        if self._fabric is None:
            return values
        reduced = self._fabric.all_reduce(values, reduce_op="mean")
        return reduced if isinstance(reduced, Tensor) else values

    def from_first(self, value: float) -> float:
        """What the first process passes."""
        return value if self._fabric is None else float(self._fabric.broadcast(value))

    def wait(self) -> None:
        """Until every process is here."""
        if self._fabric is not None:
            self._fabric.barrier()
