"""The JSON beside a raw file: what its format has no place for.

``photo.raw`` is described by ``photo.raw.json``::

    {"quantisp_raw": 1, "width": 1920, "height": 1080, "packing": "plain16", "stride": 3840,
     "bits": 12, "pattern": "BGGR", "black": 200, "white": 4095,
     "as_shot_neutral": [0.5, 1.0, 0.6], "color_matrix": [[...], [...], [...]], "orientation": 1,
     "noise_profile": [[0.0002, 0.000002]], "white_response": [0.5, 0.5, 0.5],
     "metadata": {"iso": "100"}}

Every key but the first is optional. ``black`` is a number, or a list with one for each position of
the pattern's tile, row by row. The first four are for files without a header.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantisp.cfa.patterns import parse_pattern
from quantisp.cfa.raw.options import GEOMETRY, RawOptions
from quantisp.cfa.raw_image import RawImage
from quantisp.errors import ImageError, PatternError, SettingError

__all__ = ["describe", "read_sidecar", "sidecar_path"]

SCHEMA_KEY, SCHEMA = "quantisp_raw", 1
# Some lines of text; a file beside a picture may be anything.
MOST_BYTES = 1 << 20


def sidecar_path(path: Path) -> Path:
    """Where the description of ``path`` is."""
    return path.with_name(path.name + ".json")


def read_sidecar(path: Path) -> RawOptions:
    """What the file beside ``path`` says; nothing where there is none.

    Raises:
        ImageError: it is no sidecar, or one of its values means nothing.
    """
    beside = sidecar_path(path)
    try:
        with beside.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return RawOptions()
    except OSError as error:
        raise ImageError(
            f"expected a sidecar at {beside}, found {error.strerror}: correct it, or move it away"
        ) from error
    try:
        return _parse(content)
    except (SettingError, PatternError) as error:
        raise ImageError(f"in {beside}: {error}") from error
    # RecursionError is a RuntimeError: a file may nest as deep as it likes.
    except (ValueError, TypeError, RecursionError) as error:
        raise ImageError(
            f"expected a sidecar in JSON at {beside}, found {' '.join(str(error).split())}: "
            "correct it (docs/raw.md says what is in it), or move it away"
        ) from error


def describe(raw: RawImage, *, geometry: dict[str, Any] | None = None) -> bytes:
    """The sidecar of a capture, as bytes.

    Args:
        raw: the capture.
        geometry: width, height, packing and stride, for a file without a header.
    """
    fields: dict[str, Any] = {SCHEMA_KEY: SCHEMA, **(geometry or {})}
    same = len(set(raw.black)) == 1
    fields |= {
        "bits": raw.bits,
        "pattern": "/".join(raw.pattern.tile),
        "black": raw.black[0] if same else list(raw.black),
        "white": raw.white,
        "orientation": raw.orientation,
    }
    if raw.as_shot_neutral is not None:
        fields["as_shot_neutral"] = list(raw.as_shot_neutral)
    if raw.color_matrix is not None:
        fields["color_matrix"] = raw.color_matrix.tolist()
    if raw.noise_profile is not None:
        fields["noise_profile"] = [list(pair) for pair in raw.noise_profile]
    if dict(raw.pattern.responses).get("W"):
        fields["white_response"] = list(raw.pattern.response("W"))
    if raw.metadata:
        fields["metadata"] = dict(raw.metadata)
    return (json.dumps(fields, indent=1, ensure_ascii=False) + "\n").encode()


def _parse(content: bytes) -> RawOptions:
    if len(content) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    document = json.loads(content)
    if not isinstance(document, dict) or document.get(SCHEMA_KEY) != SCHEMA:
        raise ValueError(f'no "{SCHEMA_KEY}": {SCHEMA}')
    fields: dict[str, Any] = {k: v for k, v in document.items() if k != SCHEMA_KEY}
    white_response = fields.pop("white_response", None)
    unknown = sorted(fields.keys() - PARSERS.keys())
    if unknown:
        raise ValueError(f"the unknown key {unknown[0]!r}")
    parsed = {name: PARSERS[name](name, value) for name, value in fields.items()}
    if white_response is not None:
        if "pattern" not in parsed:
            raise ValueError("white_response without a pattern")
        weights = _tuple("white_response", white_response, 3)
        parsed["pattern"] = parsed["pattern"].with_white(weights)
    return RawOptions(**parsed)


def _integer(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} for {name}, which is a whole number")  # noqa: TRY004
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} for {name}, which is a number")  # noqa: TRY004
    # JSON's integers have no end, and Python reads NaN.
    if abs(value) > 1e30 or not math.isfinite(value):
        raise ValueError(f"{name} out of range")
    return float(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} for {name}, which is a text")  # noqa: TRY004
    return value


def _tuple(name: str, value: Any, size: int | None = None) -> tuple[Any, ...]:
    if not isinstance(value, list) or (size is not None and len(value) != size):
        raise ValueError(f"no list of {size or 'some'} numbers for {name}")
    return tuple(_number(name, item) for item in value)


def _levels(name: str, value: Any) -> tuple[float, ...]:
    return _tuple(name, value) if isinstance(value, list) else (_number(name, value),)


def _rows(size: int) -> Callable[[str, Any], tuple[Any, ...]]:
    def parse(name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise ValueError(f"no list of rows for {name}")
        return tuple(_tuple(name, row, size) for row in value)

    return parse


def _texts(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"no texts by name for {name}")  # noqa: TRY004
    return {key: _text(key, text) for key, text in value.items()}


PARSERS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(GEOMETRY - {"packing"} | {"bits", "orientation"}, _integer),
    "packing": _text,
    "pattern": lambda name, value: parse_pattern(_text(name, value)),
    "black": _levels,
    "white": _number,
    "as_shot_neutral": lambda name, value: _tuple(name, value, 3),
    "color_matrix": _rows(3),
    "noise_profile": _rows(2),
    "metadata": _texts,
}
