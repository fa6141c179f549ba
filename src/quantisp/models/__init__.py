"""Networks that restore RGB from a mosaic, and the files that hold them."""

from quantisp.models.classical import LinearFilters, LinearFit
from quantisp.models.classical_zoo import (
    check_pattern,
    classical_methods,
    fitting_models,
    load_classical,
)
from quantisp.models.dephasenet import PRESETS, DePhaseNet, DePhaseNetConfig
from quantisp.models.program_input import InputSize
from quantisp.models.weights import (
    ModelFile,
    Origin,
    Provenance,
    model_sha256,
    read_model_file,
    read_tensors,
    write_model_file,
)
from quantisp.models.zoo import (
    LoadedModel,
    build_preset,
    build_structure,
    load_model_file,
    load_own_model,
    load_program_file,
    own_pattern,
    packaged_models,
    presets,
)

__all__ = [
    "PRESETS",
    "DePhaseNet",
    "DePhaseNetConfig",
    "InputSize",
    "LinearFilters",
    "LinearFit",
    "LoadedModel",
    "ModelFile",
    "Origin",
    "Provenance",
    "build_preset",
    "build_structure",
    "check_pattern",
    "classical_methods",
    "fitting_models",
    "load_classical",
    "load_model_file",
    "load_own_model",
    "load_program_file",
    "model_sha256",
    "own_pattern",
    "packaged_models",
    "presets",
    "read_model_file",
    "read_tensors",
    "write_model_file",
]
