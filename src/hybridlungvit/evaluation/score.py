"""Scoring: a trained run's probability for every validation and test image, as CSV."""

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import nn

from hybridlungvit.config import Study
from hybridlungvit.data.batches import open_images
from hybridlungvit.evaluation.predictions import COLUMNS, evaluated_from, require_same
from hybridlungvit.io import StudyError, file_sha256, read_json, write_record, write_text
from hybridlungvit.model import build_model
from hybridlungvit.paths import Layout
from hybridlungvit.provenance import code_commit, environment_record
from hybridlungvit.runtime import device_name, prepare_device, track
from hybridlungvit.training.frozen import open_store
from hybridlungvit.training.trainer import predict


def load_run(study: Study, variant: str, seed: int, layout: Layout) -> nn.Module:
    """The trained model of a variant and seed, in evaluation mode on the CPU.

    Raises ``StudyError`` when the run was made from another config or another manifest.
    """
    run = layout.run(study.trained_as(variant), seed)
    record = read_json(run / "run.json")
    require_same(run, "config", record["config_sha256"], study.training_hash(variant))
    require_same(run, "manifest", record["manifest_sha256"], file_sha256(layout.manifest))
    weights = run / "model.safetensors"
    if weights.is_file():
        require_same(run, "weights", record["model_sha256"], file_sha256(weights))
    model = build_model(study.recipe(variant), pretrained=False)
    try:
        model.load_state_dict(load_file(weights))
    except Exception as error:  # safetensors, key and shape errors share no base class
        raise StudyError(f"{weights}: unusable ({error}). Train again.") from error
    return model.eval()


def score_family(study: Study, owner: str, layout: Layout) -> None:
    """Write the predictions of every variant evaluated from ``owner``'s training, of every seed."""
    for seed in study.seeds:
        for variant in evaluated_from(study, owner):
            score(study, variant, seed, layout)


def score(study: Study, variant: str, seed: int, layout: Layout) -> pd.DataFrame:
    """Write and return the predictions of one run: one row per validation and test image.

    ``probability`` is that of pneumonia, with test-time augmentation if the variant asks for it;
    ``lung_dice`` and ``lung_loss`` compare a segmentation head's lungs with the mask of the image.
    A JSON beside the CSV records what it was made from, the record of its training included.
    """
    recipe = study.recipe(variant)
    device = prepare_device(recipe.compute)
    manifest, cache = open_images(recipe, layout)
    store = open_store(study, variant, layout, recipe)
    model = load_run(study, variant, seed, layout).to(device)
    rows, tta = np.flatnonzero(manifest.split != "train"), recipe.evaluation.tta
    parts = np.array_split(rows, -(-len(rows) // recipe.evaluation.batch_size))
    scores = [] if store is None else [store.probabilities(model, cache, rows, tta, device)]
    for part in track(parts, len(parts), f"scoring {variant}, seed {seed}") if not scores else ():
        pixels = torch.from_numpy(cache.images[part]).to(device)
        masks = torch.from_numpy(cache.masks(part)).to(device)
        scores.append(predict(model, pixels, masks, tta))
    values = np.concatenate(scores).reshape(len(rows), -1)  # (N, 1) or (N, 3)
    table = manifest.iloc[rows].assign(probability=values[:, 0])[COLUMNS]
    if values.shape[1] > 1:
        table = table.assign(lung_dice=values[:, 1], lung_loss=values[:, 2])
    output = layout.predictions(variant, seed)
    write_text(output, table.to_csv(index=False, float_format="%.9g", lineterminator="\n"))
    run = layout.run(study.trained_as(variant), seed)
    write_record(
        output.with_suffix(".json"),
        {
            "variant": variant,
            "trained_as": study.trained_as(variant),
            "seed": seed,
            "config_sha256": study.prediction_hash(variant),
            "manifest_sha256": file_sha256(layout.manifest),
            "model_sha256": file_sha256(run / "model.safetensors"),
            "predictions_sha256": file_sha256(output),
            "code_commit": code_commit(),
            "device": device_name(device),
            "threads": recipe.compute.threads,
            **environment_record(),
            "run": read_json(run / "run.json"),
        },
    )
    return table
