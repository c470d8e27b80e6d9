"""What a run is known by: its weights' hash, its key, and what travels with its model."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import timm
import torch
from pydantic import Field
from torch import Tensor, nn

from hybridlungvit.config import Compute, Recipe, Section
from hybridlungvit.io import file_sha256
from hybridlungvit.provenance import code_sha256
from hybridlungvit.runtime import device_name

KEY = "hybridlungvit"
"""Where it stands in the metadata of a safetensors file: as one entry, for their order is random
and checkpoints are compared by their bytes."""


class Description(Section):
    """What travels with the weights of a model, so that predicting needs no other file."""

    recipe: Recipe
    ranges: dict[str, tuple[float, float]]
    """Statistics of the training images, from where to where: see ``data/statistics.py``."""
    temperature: Annotated[float, Field(gt=0)]
    """Divides the logit of a probability to calibrate it; fitted on the validation images."""


def weights_sha256(recipe: Recipe, stem: nn.Module) -> str | None:
    """SHA-256 of the pretrained weights: of the file, of timm's as loaded, None for random ones.

    The hub may change a file unseen, so ``stem`` must be as it was built, before any training.
    """
    pretrained = recipe.model.pretrained
    if isinstance(pretrained, str):
        return file_sha256(Path(pretrained))
    return tensors_sha256(stem.state_dict()) if pretrained else None


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and values, whatever the order, layout and device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        values = tensor.detach().cpu().contiguous()
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def portable(recipe: Recipe) -> Recipe:
    """The recipe without what belongs to this machine: paths, threads and devices."""
    pretrained = recipe.model.pretrained
    name = Path(pretrained).name if isinstance(pretrained, str) else pretrained
    places = ["annotations", "url"] + ["patients"] * (recipe.data.patients_file is not None)
    masks = {"masks": recipe.data.masks and Path(recipe.data.masks).name}
    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"pretrained": name}),
            "data": recipe.data.model_copy(update=dict.fromkeys(places, None) | masks),
            "compute": Compute(),
        }
    )


def run_key(
    recipe: Recipe, seed: int, origin: dict[str, str | None], device: torch.device
) -> dict[str, str]:
    """All that decides the bits of an unfinished training, by name: it resumes only if all agree.

    The config's values are named as there ("training.loss"), but for ``compute.device``: "auto"
    says nothing, so ``device`` is the one in use. ``origin`` is that of ``write_run``.
    """
    config = recipe.training_identity()
    del config["compute"]["device"]
    return _flat(config) | {
        "seed": str(seed),
        "manifest": str(origin["manifest_sha256"]),
        "code": code_sha256("train"),
        "weights": origin["weights_sha256"] or "none",
        "torch": str(torch.__version__),  # a class of torch's own, which it will not load again
        "timm": timm.__version__,
        "device": f"{device.type} {device_name(device)}",
    }


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values as JSON texts: {"a": {"b": 1}} → {"a.b": "1"}."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(value)
    return flat
