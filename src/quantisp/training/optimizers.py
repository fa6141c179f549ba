"""Muon for the weights of convolutions and linear layers, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quantisp.training.muon import StackedMuon

__all__ = ["OPTIMIZERS", "Optimizers"]

OPTIMIZERS = ("muon", "adamw")
CODE_BETAS = (0.9, 0.99)


class Optimizers:
    """What moves the parameters of a model; make it after the model is on its device and
    in channels_last.

    Muon replaces the momentum of a weight matrix by the nearest orthogonal one, so that every
    direction is learned at the same rate. A convolution's weight (out, in, kh, kw) counts as
    the matrix (out, kh * kw * in). Biases, grouped convolutions and the layers in
    ``model.float32_layers`` have no such matrix, or one through which the picture itself passes:
    they are left to AdamW. Updates are scaled to the size of AdamW's, so that one learning rate
    serves both.

    A quantized network names two further kinds, which Adam moves: ``model.code_parameters`` are
    weights in units that are as large a part of the range of every channel, so that a step is so,
    too; ``model.scale_parameters`` are scales. ``model.rates`` says of parameters by how many times
    the learning rate they move. None of these decays, for nothing draws them towards zero.

    Args:
        kind: ``muon``, or ``adamw`` for every parameter.
        model: trained in place.
        learning_rate, weight_decay: of both.
        other: moves some of the parameters in their place; its parameters do not decay.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the
    scale is that of Liu et al., "Muon is scalable for LLM training", arXiv 2502.16982, eq. 4.
    """

    def __init__(
        self,
        kind: str,
        model: nn.Module,
        *,
        learning_rate: float,
        weight_decay: float,
        other: torch.optim.Optimizer | None = None,
    ) -> None:
        codes = [model.get_parameter(name) for name in getattr(model, "code_parameters", ())]
        scales = [model.get_parameter(name) for name in getattr(model, "scale_parameters", ())]
        moved = [] if other is None else [v for g in other.param_groups for v in g["params"]]
        chosen = {id(value) for value in (*codes, *scales, *moved)}
        weights = [
            weight
            for weight in (_matrix_weights(model) if kind == "muon" else [])
            if id(weight) not in chosen
        ]
        chosen |= {id(weight) for weight in weights}
        others = [value for value in model.parameters() if id(value) not in chosen]
        # Muon takes matrices: these share their memory with the weights.
        self._pairs = [
            (weight, nn.Parameter(_channels_last(weight.data).view(len(weight), -1)))
            for weight in weights
        ]
        own: Mapping[str, float] = getattr(model, "rates", {})
        self._rates = {id(model.get_parameter(name)): rate for name, rate in own.items()}
        self._rates |= {id(m): self._rates[id(w)] for w, m in self._pairs if id(w) in self._rates}
        self._parts: dict[str, torch.optim.Optimizer] = {}
        if others:
            self._parts["adamw"] = torch.optim.AdamW(
                self._groups(others, weight_decay), learning_rate
            )
        for name, values in (("codes", codes), ("scales", scales)):
            if values:
                groups = self._groups(values, 0.0)
                self._parts[name] = torch.optim.Adam(groups, learning_rate, betas=CODE_BETAS)
        if self._pairs:
            self._parts["muon"] = StackedMuon(
                self._groups([matrix for _, matrix in self._pairs], weight_decay),
                learning_rate,
                adjust_lr_fn="match_rms_adamw",
            )
        if other is not None:
            self._parts["other"] = other

    def step(self, learning_rate: float) -> None:
        """Move every parameter along its gradient."""
        for weight, matrix in self._pairs:
            grad = weight.grad
            matrix.grad = None if grad is None else _channels_last(grad).reshape(len(grad), -1)
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = learning_rate * self._rates.get(id(group["params"][0]), 1.0)
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The moments, to go on from."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the moments of the same model and kind.

        Raises:
            ValueError, KeyError: they are of something else.
        """
        if state.keys() != self._parts.keys():
            raise ValueError(f"it has moments of {', '.join(state) or 'nothing'}")
        for name, part in self._parts.items():
            part.load_state_dict(state[name])

    def _groups(self, values: Sequence[Tensor], weight_decay: float) -> list[dict[str, Any]]:
        """Parameters of one rate each; those with a rate of their own do not decay."""
        groups: dict[float | None, list[Tensor]] = {}
        for value in values:
            groups.setdefault(self._rates.get(id(value)), []).append(value)
        return [
            {"params": group, "weight_decay": weight_decay if rate is None else 0.0}
            for rate, group in groups.items()
        ]


def _matrix_weights(model: nn.Module) -> list[Tensor]:
    kept_out = {model.get_submodule(name) for name in getattr(model, "float32_layers", ())}
    weights = [
        layer.weight
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
        and getattr(layer, "groups", 1) == 1
        and layer not in kept_out
        and layer.weight.requires_grad
    ]
    # A weight that two layers share is moved once.
    return list({id(weight): weight for weight in weights}.values())


def _channels_last(weight: Tensor) -> Tensor:
    """The axes in the order in which a weight lies in memory while it is trained."""
    return weight.permute(0, 2, 3, 1) if weight.ndim == 4 else weight
