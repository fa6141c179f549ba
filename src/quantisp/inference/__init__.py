"""Running any network: devices, layout, windows, and what it costs."""

from quantisp.inference.cost import PROBE_PX, LayerCost, NetworkCost, network_cost
from quantisp.inference.interface import Interface
from quantisp.inference.memory import keep_freed_memory
from quantisp.inference.receptive_field import ReceptiveField, receptive_field
from quantisp.inference.runner import (
    Window,
    check_network,
    find_device,
    find_interface,
    prepare,
    restore,
    restore_window,
)
from quantisp.inference.tiles import input_window, restore_tiled, tile_windows

__all__ = [
    "PROBE_PX",
    "Interface",
    "LayerCost",
    "NetworkCost",
    "ReceptiveField",
    "Window",
    "check_network",
    "find_device",
    "find_interface",
    "input_window",
    "keep_freed_memory",
    "network_cost",
    "prepare",
    "receptive_field",
    "restore",
    "restore_tiled",
    "restore_window",
    "tile_windows",
]
