"""Raw files: one format, one file, and one door (docs/raw.md)."""

from quantisp.cfa.raw.files import RAW_SUFFIXES, read_raw, write_dng, write_headless, write_raw
from quantisp.cfa.raw.options import PACKINGS, Packing, RawOptions

__all__ = [
    "PACKINGS",
    "RAW_SUFFIXES",
    "Packing",
    "RawOptions",
    "read_raw",
    "write_dng",
    "write_headless",
    "write_raw",
]
