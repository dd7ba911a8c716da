"""Force models on the `Batch` contract, and the one table that names them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from remul_md.errors import InputError
from remul_md.models.ensemble import Ensemble, EnsembleConfig
from remul_md.models.operations import Forces, Symmetry
from remul_md.models.painn import Painn, PainnConfig
from remul_md.models.plain import Plain, PlainConfig
from remul_md.models.transformer import (
    AtomBlock,
    DirectHead,
    PairNetwork,
    Transformer,
    TransformerConfig,
)
from remul_md.structures.batch import Batch, Prediction

__all__ = [
    "MODELS",
    "ForceModel",
    "Forces",
    "Symmetry",
    "build_model",
    "exact_model",
    "model_config",
    "model_config_type",
    "raw_direction_masks",
    "symmetry_of",
    "without_raw_directions",
]


class ForceModel(Protocol):
    """What the losses, the trainer and the calculators know of a model.

    `forces`: "none", "direct", "conservative" or "both"; energies and forces in the model's own dtype, eV and
    eV/Angstrom, energies without the reference energies of the elements. `create_graph` keeps the graph of
    conservative forces for training.
    """

    def __call__(self, batch: Batch, *, forces: Forces = "none", create_graph: bool = False) -> Prediction:
        """Prediction for all systems of the batch."""
        ...


# The first is what a config without `kind` means; painn is the control of the studies and plain the network of the
# papers (`symmetry=none`), neither is a recommendation.
MODELS: dict[str, tuple[type[Any], type[nn.Module]]] = {
    "transformer": (TransformerConfig, Transformer),
    "painn": (PainnConfig, Painn),
    "plain": (PlainConfig, Plain),
}


def _table() -> dict[str, tuple[type[Any], type[nn.Module]]]:
    # An ensemble is made of trained models and never trained itself, so no config names it.
    return {**MODELS, "ensemble": (EnsembleConfig, Ensemble)}


def build_model(kind: str, options: Mapping[str, Any]) -> nn.Module:
    """A freshly initialised model; its numbers come from torch's global generator.

    Args:
        kind: a key of `MODELS`, or ensemble.
        options: the fields of its config.
    Raises:
        InputError: unknown kind or option, a value out of range.
    """
    config_type = model_config_type(kind)
    known = {field.name for field in fields(config_type)}
    for name in options:
        if name not in known:
            raise InputError(f"model option {name!r} is unknown to {kind}; it knows {', '.join(sorted(known))}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    config = config_type(**values)
    if isinstance(config, EnsembleConfig):
        shared = {**config.member_options, "energy_scale": 1.0}
        return Ensemble(config, [build_model(config.member_kind, shared) for _ in config.energy_scales])
    return _table()[kind][1](config)


def model_config_type(kind: str) -> type[Any]:
    """The config dataclass of a kind of model.

    Raises:
        InputError: unknown kind.
    """
    if kind not in _table():
        raise InputError(f"model kind {kind!r} is unknown; choose one of {', '.join(MODELS)}")
    return _table()[kind][0]


def model_config(model: nn.Module) -> tuple[str, dict[str, Any]]:
    """Kind and options of a model, JSON-able: `build_model(*model_config(model))` gives its like.

    Raises:
        InputError: the model is of no registered type.
    """
    for kind, (_, model_type) in _table().items():
        if type(model) is model_type:
            return kind, asdict(model.config)  # type: ignore[call-overload]
    raise InputError(f"model of type {type(model).__name__} is in no row of remul_md.models.MODELS; register it there")


def symmetry_of(model: nn.Module) -> Symmetry:
    """ "exact" where O(3) is built in, so that no weights can break it; "none" where nothing is; else "relaxed"."""
    config: Any = model.member.model.config if isinstance(model, Ensemble) else model.config
    symmetry: Symmetry = config.symmetry
    return symmetry


def exact_model(model: nn.Module) -> nn.Module:
    """The same network with its raw directions cut: energies and forces turn with the molecule exactly.

    Returns:
        A model of its own that shares the other weights, on the same device and in the same precision; an exact model
        comes back as it is.
    Raises:
        InputError: a plain model, which has no equivariant part that could be left.
    """
    if symmetry_of(model) == "none":
        raise InputError(
            "symmetry='exact' was asked for, but this is a plain network (model.symmetry=none): it has no equivariant "
            "part that would be left without raw directions; leave the option out"
        )
    if symmetry_of(model) == "exact":
        return model
    kind, options = model_config(model)
    (options["member_options"] if kind == "ensemble" else options)["symmetry"] = "exact"
    parameter = next(model.parameters())
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are replaced
        exact = build_model(kind, options).to(device=parameter.device, dtype=parameter.dtype)
    exact.load_state_dict(_without_raw_directions(model), assign=True)
    return exact.train(model.training).requires_grad_(parameter.requires_grad)


def without_raw_directions(model: nn.Module) -> nn.Module:
    """What is left of a model whose raw directions are cut, for its error: the exact one, if there is one.

    Of a plain model it is a copy in which the weights that read displacements are 0.
    """
    if symmetry_of(model) != "none":
        return exact_model(model)
    cut = copy.deepcopy(model)
    weights = cut.state_dict()  # shares their memory
    with torch.no_grad():
        for name, mask in raw_direction_masks(model).items():
            weights[name].masked_fill_(mask, 0.0)
    return cut


def raw_direction_masks(model: nn.Module) -> dict[str, Tensor]:
    """Where the weights read raw directions or, in a relaxed transformer, write raw forces: there no others break O(3).

    Args:
        model: of the table, or what holds one whose weights are stacks of several, [M, ...].
    Returns:
        Names of those tensors and masks of their shapes; none for an exact model.
    """
    weights, masks = model.state_dict(), dict[str, Tensor]()
    for name, raw, _ in _raw_parts(model):
        masks[name] = torch.zeros_like(weights[name], dtype=torch.bool)
        masks[name][raw] = True
    return masks


def _without_raw_directions(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a relaxed transformer without those of `raw_direction_masks`, as the exact one loads them."""
    weights = model.state_dict()
    for name, _, kept in _raw_parts(model):
        weights[name] = weights[name][kept].contiguous()
    return weights


def _raw_parts(model: nn.Module) -> Iterator[tuple[str, Any, Any]]:
    """Names of the weights that raw directions have a part in, the index of that part and of what is left."""
    if symmetry_of(model) == "exact":
        return
    for name, module in model.named_modules():
        if isinstance(module, Plain):
            yield f"{name}.pair_network.0.inputs.weight".lstrip("."), (..., slice(3)), (..., slice(3, None))
        elif isinstance(module, AtomBlock | PairNetwork):
            key = f"{name}.pair.weight" if isinstance(module, AtomBlock) else f"{name}.inputs.weight"
            yield key, (..., slice(-3, None)), (..., slice(None, -3))
        elif isinstance(module, DirectHead):
            yield f"{name}.outputs.weight", (..., slice(3), slice(None)), (..., slice(3, None), slice(None))
            yield f"{name}.outputs.bias", (..., slice(3)), (..., slice(3, None))
