"""What quantisp finds out, as plain data: no torch, no numpy, ready for JSON."""

from quantisp.records.crops import Crop, CropPanel
from quantisp.records.evaluation import EvaluationResult, ImageQuality
from quantisp.records.rows import FloatResult, StudyRow
from quantisp.records.settings import Granularity, RowGranularity, Setting
from quantisp.records.study import SCHEMA, LayerResult, Recommendation, StudyResult

__all__ = [
    "SCHEMA",
    "Crop",
    "CropPanel",
    "EvaluationResult",
    "FloatResult",
    "Granularity",
    "ImageQuality",
    "LayerResult",
    "Recommendation",
    "RowGranularity",
    "Setting",
    "StudyResult",
    "StudyRow",
]
