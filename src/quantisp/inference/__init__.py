"""Running any network: devices, layout, windows, and what it costs."""

from quantisp.inference.cost import LayerCost, NetworkCost, network_cost
from quantisp.inference.receptive_field import ReceptiveField, receptive_field
from quantisp.inference.runner import Window, find_device, prepare, restore, restore_window

__all__ = [
    "LayerCost",
    "NetworkCost",
    "ReceptiveField",
    "Window",
    "find_device",
    "network_cost",
    "prepare",
    "receptive_field",
    "restore",
    "restore_window",
]
