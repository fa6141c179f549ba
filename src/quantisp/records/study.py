"""A whole study: its rows, what it recommends, and what was quantized."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from quantisp.records.costs import CostSheet
from quantisp.records.document import document
from quantisp.records.rows import FloatResult, StudyRow
from quantisp.records.settings import RowGranularity

__all__ = ["SCHEMA", "LayerResult", "Recommendation", "StudyResult"]

SCHEMA = 1
# What nobody can know of raw files: null in what is written of a study of them.
AGAINST_TRUTH = frozenset(
    {"psnr_db", "drop_db", "worst_image_drop_db", "worst_tile_drop_db", "psnr_crop10_db", "ssim"}
    | {"simulated_psnr_db"}
)


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The fewest weight bits whose drop is at most ``within_db`` there and at every larger width.

    ``weight_bits`` is None where no width that was studied is enough.
    """

    within_db: float
    method: str
    granularity: RowGranularity
    activation_bits: int | None
    weight_bits: int | None


@dataclass(frozen=True, kw_only=True)
class LayerResult:
    """What became of one module with parameters, or of a buffer that may be used as a weight.

    Args:
        name: as in ``named_modules``; the network itself is ``""``. That of ``named_buffers``.
        kind: its class, such as ``Conv2d``; ``buffer`` for a buffer.
        weights: how many parameters of it could be quantized; for other modules, how many it has.
        weight_bits: the widths that it was studied at; empty where it stays in float.
        reason: why it stays in float; empty where it is quantized.
        folded_into: the layer that a batch normalisation was made part of, or None.
    """

    name: str
    kind: str
    weights: int
    weight_bits: tuple[int, ...] = ()
    reason: str = ""
    folded_into: str | None = None

    @property
    def in_float(self) -> bool:
        """Whether the network still uses its parameters as they were trained."""
        return not self.weight_bits and self.folded_into is None

    @property
    def is_buffer(self) -> bool:
        """Whether it is no module, but a buffer, whose numbers no training changes."""
        return self.kind == "buffer"


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """The table: one row per setting, against float.

    Args:
        cfa: what the pictures were sampled through; None where the network restores no mosaics.
        protocol: how it was measured, such as ``degradation``: what the network undoes.
            Where it has ``reference``, raw files were studied, of which nobody knows the truth: the
            float network's output stands for it. ``images`` are PSNR against that then; what is
            against the truth is null in :meth:`to_json` and means nothing here.
        coverage: what became of each module with parameters, in the network's order, and then of
            buffers that may be used as weights.
        cost_sheet: of the cheapest row with activations in integers that is within the tolerance,
            else of the best of them; None without such rows.
        cost_sheet_row: which one that is, counted from 0.
    """

    model: str
    model_sha256: str
    cfa: str | None
    protocol: Mapping[str, Any]
    float: FloatResult
    rows: tuple[StudyRow, ...]
    recommendation: tuple[Recommendation, ...]
    coverage: tuple[LayerResult, ...] = ()
    cost_sheet: CostSheet | None = None
    cost_sheet_row: int | None = None
    schema: int = field(default=SCHEMA)

    @property
    def uniform_rows(self) -> tuple[StudyRow, ...]:
        """Those with the same integers in every layer."""
        return tuple(row for row in self.rows if row.setting.is_uniform)

    @property
    def is_kodak(self) -> bool:
        """Whether clean mosaics of the 24 Kodak pictures, recognised by content, were restored."""
        clean = not str(self.protocol.get("degradation")).startswith("raw")
        return self.protocol.get("image_set") == "kodak" and self.cfa is not None and clean

    @property
    def has_truth(self) -> bool:
        """Whether there was something to compare with besides the float network's output."""
        return self.protocol.get("reference") is None

    @property
    def task(self) -> str:
        """What the network undoes: its CFA, and the degradation unless that is the mosaic alone."""
        degradation = str(self.protocol.get("degradation"))
        if self.cfa is None:
            return degradation
        return f"{self.cfa}, {degradation}" if degradation.startswith("raw") else self.cfa

    def _without_truth(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row or the float network's figures as they are written."""
        return {k: None if k in AGAINST_TRUTH and not self.has_truth else row[k] for k in row}

    def to_json(self) -> str:
        """``study.json``: one document, ending in a newline; equal results give equal bytes."""
        return document(
            {
                "schema": self.schema,
                "model": self.model,
                "model_sha256": self.model_sha256,
                "cfa": self.cfa,
                "protocol": dict(self.protocol),
                "float": self._without_truth(asdict(self.float)),
                "rows": [self._without_truth(asdict(row)) for row in self.rows],
                "recommendation": None
                if not self.has_truth
                else {
                    "within_db": self.recommendation[0].within_db,
                    "choices": [
                        {
                            name: value
                            for name, value in asdict(choice).items()
                            if name != "within_db"
                        }
                        for choice in self.recommendation
                    ],
                },
                "coverage": [asdict(layer) for layer in self.coverage],
                "cost_sheet": None
                if self.cost_sheet is None
                else {"row": self.cost_sheet_row, **self.cost_sheet.to_dict()},
            }
        )

    def to_csv(self) -> str:
        """``study.csv``: without pictures and layers; an empty field is float or no value."""
        left_out = ("images", "layer_bits", "decisions")
        columns = [name for name in StudyRow.__dataclass_fields__ if name not in left_out]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in self.rows:
            written = self._without_truth({name: getattr(row, name) for name in columns})
            writer.writerow([_cell(value) for value in written.values()])
        return text.getvalue()


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.6f}" if isinstance(value, float) else str(value)
