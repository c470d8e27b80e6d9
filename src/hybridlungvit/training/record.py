"""The records of a finished run: weights, history, timing and provenance."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save
from torch import Tensor, nn

from hybridlungvit.config import Compute, Recipe, Study
from hybridlungvit.data.statistics import Ranges
from hybridlungvit.description import KEY, Description
from hybridlungvit.device import device_name
from hybridlungvit.files import file_sha256, replacing, value_sha256, write_record, write_text
from hybridlungvit.paths import Layout
from hybridlungvit.provenance import code_commit, code_sha256, environment_record


def weights_sha256(recipe: Recipe) -> str | None:
    """SHA-256 of the pretrained weights file, or None when the config names no file."""
    pretrained = recipe.model.pretrained
    return file_sha256(Path(pretrained)) if isinstance(pretrained, str) else None


def _portable(recipe: Recipe) -> Recipe:
    """The recipe without what belongs to this machine: paths, threads and devices."""
    pretrained = recipe.model.pretrained
    name = Path(pretrained).name if isinstance(pretrained, str) else pretrained
    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"pretrained": name}),
            "data": recipe.data.model_copy(update={"annotations": None}),
            "compute": Compute(),
        }
    )


def run_key(recipe: Recipe, seed: int, manifest_sha256: str) -> str:
    """Hash of all that a checkpoint depends on: config values, seed, data, code and weights."""
    return value_sha256(
        {
            "config": recipe.training_identity(),
            "seed": seed,
            "manifest": manifest_sha256,
            "code": code_sha256("train"),
            "weights": weights_sha256(recipe),
            "torch": torch.__version__,
        }
    )


def write_run(
    study: Study,
    variant: str,
    seed: int,
    layout: Layout,
    model: nn.Module,
    weights: dict[str, Tensor],
    history: list[dict[str, float]],
    timing: list[dict[str, float]],
    device: torch.device,
    ranges: Ranges,
    temperature: float,
) -> None:
    """Write model.safetensors, history.csv, timing.csv and run.json, then drop the checkpoints.

    ``ranges`` of the training images' statistics and the validation's ``temperature`` travel with
    the weights.
    """
    recipe = study.recipe(variant)
    run = layout.run(variant, seed)
    with replacing(run / "model.safetensors") as temporary:
        # What describes the weights travels with them: predicting needs no other file.
        description = Description(recipe=_portable(recipe), ranges=ranges, temperature=temperature)
        temporary.write_bytes(save(weights, {KEY: description.model_dump_json()}))
    epochs, times = pd.DataFrame(history), pd.DataFrame(timing)
    write_text(run / "history.csv", epochs.to_csv(index=False, lineterminator="\n"))
    write_text(run / "timing.csv", times.to_csv(index=False, lineterminator="\n"))
    best = epochs.val_auc.idxmax()
    record: dict[str, Any] = {
        "study": study.study,
        "variant": variant,
        "seed": seed,
        "config_sha256": study.training_hash(variant),
        "manifest_sha256": file_sha256(layout.manifest),
        "code_sha256": code_sha256("train"),
        "code_commit": code_commit(),
        "pretrained": "file"
        if isinstance(recipe.model.pretrained, str)
        else recipe.model.pretrained,
        "weights_sha256": weights_sha256(recipe),
        "model_sha256": file_sha256(run / "model.safetensors"),
        "parameters": sum(p.numel() for p in model.parameters()),
        "stem_parameters": sum(p.numel() for p in model.stem.parameters()),
        "stem": {"patch": model.stem.patch, "dim": model.stem.dim},
        "best_epoch": int(epochs.epoch[best]),
        "epochs_run": len(epochs),
        "best_val_auc": float(epochs.val_auc[best]),
        "temperature": temperature,
        "wall_seconds": float(times.seconds.sum()),
        "device": device_name(device),
        "threads": recipe.compute.threads,
        **environment_record(),
    }
    write_record(run / "run.json", record)
    shutil.rmtree(layout.work(variant, seed), ignore_errors=True)
