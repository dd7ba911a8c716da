"""Which weights of a potential a run trains: all, its direct head alone, or its raw directions alone."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor, nn

from remul_md.errors import InputError
from remul_md.models import raw_direction_masks

Trained = Literal["all", "direct-head", "raw-directions"]


def with_trained_part(model: nn.Module, trained: Trained, *, direct: bool) -> nn.Module:
    """The model, in place, with what is not trained frozen: it keeps its bits.

    Args:
        model: of a potential that is trained on.
        trained: "raw-directions" are the weights of `raw_direction_masks`. They stand in matrices with others, whose
            gradients are masked, so the optimiser must not move what has no gradient: no weight decay.
        direct: of the raw directions, those of the direct head; else those of all that is before it.
    Raises:
        InputError: raw directions of a model that has none.
    """
    if trained == "all":
        return model.requires_grad_(True).train()
    model.requires_grad_(False).train()
    if trained == "direct-head":
        model.get_submodule("direct_head").requires_grad_(True)
        return model
    masks = {name: mask for name, mask in raw_direction_masks(model).items() if ("direct_head" in name) == direct}
    if not masks:
        raise InputError(
            "train.trained=raw-directions: the potential of --init-from has none, it is exactly symmetric already"
        )
    for name, mask in masks.items():
        model.get_parameter(name).requires_grad_(True).register_hook(partial(_masked, mask=mask))
    return model


def _masked(gradient: Tensor, *, mask: Tensor) -> Tensor:
    return gradient * mask.to(gradient.device)
