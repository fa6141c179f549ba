"""Records as JSON: equal records give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["document"]


def document(content: Mapping[str, Any]) -> str:
    """One document, ending in a newline."""
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
