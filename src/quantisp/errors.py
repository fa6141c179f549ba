"""The exceptions that quantisp raises on purpose.

::

    QuantispError                 exit code 1: the run failed
    ├── RunError                  1  a run failed although its input was good
    └── InputError                2  something that the user can mend
        ├── SettingError          a value, range or name that does not exist or does not fit
        ├── PatternError          a colour filter array, or a picture that does not fit it
        ├── ImageError            a picture or a folder of pictures
        ├── ModelError            a model name, a weights file, or a network that cannot be used
        ├── PlanError             a quantization plan that does not fit the network
        └── OutputError           the place where results should be written

Every message says what was expected, what was found, and how to mend it.
"""

from __future__ import annotations

__all__ = [
    "ImageError",
    "InputError",
    "ModelError",
    "OutputError",
    "PatternError",
    "PlanError",
    "QuantispError",
    "RunError",
    "SettingError",
]


class QuantispError(Exception):
    """Anything that quantisp raises on purpose; ``exit_code`` is what a command ends with."""

    exit_code: int = 1


class RunError(QuantispError):
    """A run failed although its input was good."""


class InputError(QuantispError):
    """The input is not usable; nothing was written."""

    exit_code = 2


class SettingError(InputError):
    """A value, range or name that does not exist or does not fit."""


class PatternError(InputError):
    """A colour filter array that is not one, or a picture that does not fit it."""


class ImageError(InputError):
    """A picture, or a folder of pictures, that cannot be used."""


class ModelError(InputError):
    """A model name, a weights file, or a network that cannot be used."""


class PlanError(InputError):
    """A quantization plan that does not fit the network."""


class OutputError(InputError):
    """The place where results should be written cannot be used."""
