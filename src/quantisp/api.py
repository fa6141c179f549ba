"""The public functions."""

from __future__ import annotations

from quantisp.api_evaluate import evaluate
from quantisp.api_models import find_model, load_model
from quantisp.api_study import study, study_with_crops

__all__ = ["evaluate", "find_model", "load_model", "study", "study_with_crops"]
