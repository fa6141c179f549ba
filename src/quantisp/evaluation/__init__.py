"""Measuring models: one at a time, and a network at every bit depth."""

from quantisp.evaluation.captures import (
    REFERENCE,
    Capture,
    capture_samples,
    of_captures,
    samples_sha256,
)
from quantisp.evaluation.coverage import coverage, skipped_layers
from quantisp.evaluation.crops import CropPlace, parse_place
from quantisp.evaluation.degradation import (
    Degradation,
    downscaled,
    mosaicked,
    noisy,
    paired,
)
from quantisp.evaluation.evaluate import evaluate_pictures
from quantisp.evaluation.execution import Execution
from quantisp.evaluation.known_degradations import parse_degradation
from quantisp.evaluation.measure import Measurement, measure
from quantisp.evaluation.mixed import MixedSettings, mixed_settings
from quantisp.evaluation.pictures import StudyPicture, survey, survey_pairs
from quantisp.evaluation.raw_degradation import captured
from quantisp.evaluation.request import StudyRequest
from quantisp.evaluation.store import JobStore, job_key
from quantisp.evaluation.study import StudyOutcome, StudyProgress, run_study
from quantisp.evaluation.treatments import plan_of

__all__ = [
    "REFERENCE",
    "Capture",
    "CropPlace",
    "Degradation",
    "Execution",
    "JobStore",
    "Measurement",
    "MixedSettings",
    "StudyOutcome",
    "StudyPicture",
    "StudyProgress",
    "StudyRequest",
    "capture_samples",
    "captured",
    "coverage",
    "downscaled",
    "evaluate_pictures",
    "job_key",
    "measure",
    "mixed_settings",
    "mosaicked",
    "noisy",
    "of_captures",
    "paired",
    "parse_degradation",
    "parse_place",
    "plan_of",
    "run_study",
    "samples_sha256",
    "skipped_layers",
    "survey",
    "survey_pairs",
]
