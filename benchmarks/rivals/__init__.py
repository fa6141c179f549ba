"""Other toolkits for quantization beside ours: one module for each, on the same network and crops.

The command is ``benchmarks/rivals.py``; each module imports its toolkit only when one of its rows
is measured, so that a toolkit that is not installed costs nothing but its own rows.
"""
