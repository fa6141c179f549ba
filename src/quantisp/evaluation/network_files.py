"""The quantized networks of a study whose rounding takes long, each in a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from quantisp.errors import ModelError
from quantisp.files import make_folder, write_atomically
from quantisp.quantization import (
    Checkpoints,
    Plan,
    QuantizedModel,
    pack_quantized,
    unpack_quantized,
)

__all__ = ["NetworkFiles"]

NETWORKS_FOLDER = "networks"


class NetworkFiles:
    """What took minutes to round is there again after a kill, and for whoever wants the network.

    The study's folder says which network, inputs and seed they are of; a file says which plan.

    Args:
        folder: of the study.
        network: the float network; of its structure are all.
        texts: what further a file says, such as where the network comes from.
    """

    def __init__(self, folder: Path, network: nn.Module, texts: Mapping[str, str]) -> None:
        self._folder = folder / NETWORKS_FOLDER
        self._network = network
        self._texts = dict(texts)

    def get(self, stem: str, plan: Plan) -> QuantizedModel | None:
        """The network, to the last bit; None if none was kept, or it is damaged or of another plan.

        Args:
            stem: of the file's name.
            plan: of the weights; activations are in float.
        """
        path = self._path(stem)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                texts: dict[str, str] = file.metadata() or {}
                names: list[str] = file.keys()
                tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
            quantized = unpack_quantized(self._network, tensors, texts)
        except (OSError, ValueError, SafetensorError, ModelError):
            return None
        return quantized if quantized.plan == plan else None

    def keep(self, stem: str, quantized: QuantizedModel) -> None:
        """Write it whole, or not at all.

        Raises:
            OutputError: there is no space.
        """
        tensors, texts = pack_quantized(quantized)
        make_folder(self._folder)
        write_atomically(self._path(stem), save(tensors, {**self._texts, **texts}))
        self.checkpoints(stem, quantized.plan).remove()

    def checkpoints(self, stem: str, plan: Plan) -> Checkpoints:
        """For the parts of a rounding that is not done yet."""
        identity = f"{self._texts.get('revision', '')} {plan.to_json()}"
        return Checkpoints(self._folder / f".{stem}", identity)

    def _path(self, stem: str) -> Path:
        return self._folder / f"{stem}.safetensors"
