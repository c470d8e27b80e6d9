"""The stage of a variant's heat maps: lung focus and, of the reference, cases and checks.

The checks are those that a heat map can fail, on one subsample of the test set. Do the maps depend
on what was learned (cascading randomisation, Adebayo et al. 2018), do seeds agree on them, does a
little noise leave them as they are (maximum sensitivity, Yeh et al. 2019), and does the model need
what they mark (``faithfulness``)?
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from hybridlungvit.config import Recipe, Study
from hybridlungvit.evaluation.paired import place
from hybridlungvit.explain.cases import COMPARED_SEEDS, other_variants, settings, subsample
from hybridlungvit.explain.faithfulness import check_faithfulness
from hybridlungvit.explain.focus import write_focus
from hybridlungvit.explain.gradcam import (
    TestImages,
    heat_of,
    load_explained,
    load_tests,
    write_cases,
)
from hybridlungvit.explain.similarity import derangement, mean_intervals, similarities
from hybridlungvit.io import file_sha256, write_record
from hybridlungvit.model import HybridLungViT, build_model
from hybridlungvit.paths import Layout
from hybridlungvit.runtime import track

NOISE = 0.02  # largest change of a grey value by the stability check, as a share of their range
DRAWS = 10


def explain(study: Study, variant: str, layout: Layout) -> None:
    """Write what the paper shows of a variant's Grad-CAM: see the functions that it calls."""
    tests = load_tests(study, variant, layout)
    model = load_explained(study, variant, study.seeds[0], layout)
    write_focus(study, variant, tests, model, layout)
    if variant == study.reference:
        write_cases(study, variant, tests, model, layout)
        write_checks(study, variant, tests, model, layout)


def write_checks(
    study: Study, variant: str, tests: TestImages, model: nn.Module, layout: Layout
) -> None:
    """Write the checks that heat maps can fail, on one subsample of the test set.

    Agreement is that of the first ``COMPARED_SEEDS`` seeds, the other checks are of ``model``, the
    first seed's. All intervals resample the patients of the subsample; the trained weights are held
    fixed.
    """
    tests = tests.select(subsample(study, len(tests.table)))
    size = study.explanation.batch_size
    seeds = study.seeds[:COMPARED_SEEDS]
    models = [model, *(load_explained(study, variant, seed, layout) for seed in seeds[1:])]
    heats = np.stack([heat_of(each, tests, size) for each in models])  # (K, N, S, S)
    runs = {seed: layout.run(study.trained_as(variant), seed) for seed in seeds}
    record = {
        "variant": variant,
        **settings(study, variant),
        "predictions_sha256": file_sha256(layout.predictions(variant, study.seeds[0])),
        "model_sha256": {
            str(seed): file_sha256(run / "model.safetensors") for seed, run in runs.items()
        },
        "compared": other_variants(study, variant),
        "images": len(tests.table),
        "patients": int(tests.table.patient.nunique()),
        "sanity": check_sanity(study, variant, model, tests, heats[0]),
        "faithfulness": check_faithfulness(study, model, tests, heats[0]),
        "agreement": check_agreement(heats, tests, study),
        "stability": check_stability(model, tests, heats[0], study),
    }
    write_record(layout.saliency(variant), record)


def stages(model: nn.Module) -> list[tuple[str, list[str]]]:
    """Names of the model's parts from head to stem, each with its keys in the state dict.

    The segmentation head has no part in the classification and is in none of them.
    """
    depth = len(model.stem.vit.blocks)
    parts = {"classifier": ["classify."]}
    if isinstance(model, HybridLungViT):
        parts |= {
            "cross-attention": ["fusion.cross_attention.", "fusion.norms."],
            "token encoders": ["fusion."],
            "projection": ["project."],
        }
    parts |= {f"block {i}": [f"stem.vit.blocks.{i - 1}."] for i in range(depth, 0, -1)}
    parts[f"block {depth}"] += ["stem.vit.norm.", "stem.vit.fc_norm."]
    parts["embedding"] = ["stem."]
    left, named = list(model.state_dict()), []
    for name, prefixes in parts.items():
        named.append((name, [key for key in left if key.startswith(tuple(prefixes))]))
        left = [key for key in left if key not in named[-1][1]]
    return named


def randomised(model: nn.Module, recipe: Recipe, seed: int) -> Iterator[tuple[str, nn.Module]]:
    """Yield each stage's name and the model with that stage, and all before it, made untrained.

    Their weights are those of a newly built model, drawn as before a training without pretrained
    weights. The model given stays as it is; the one yielded is changed in place by the next step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build_model(recipe, pretrained=False).state_dict()
    model = copy.deepcopy(model)
    weights = model.state_dict()  # tensors shared with the model
    for name, keys in stages(model):
        for key in keys:
            weights[key].copy_(fresh[key])
        yield name, model


def check_sanity(
    study: Study, variant: str, model: nn.Module, tests: TestImages, heat: NDArray
) -> dict[str, Any]:
    """Similarity of the trained model's maps to those of the model randomised stage by stage.

    ``heat`` (N, S, S) are the trained model's maps of ``tests``. ``others`` compares each of them
    with its map of another patient: what two maps have in common without having the image in
    common. ``residue`` is the last stage minus that, ``verdict`` how its rank correlation lies.
    """
    options, table = study.explanation, tests.table
    columns = [similarities(heat, heat[derangement(table.patient.to_numpy(), options.seed)])]
    names = [name for name, _ in stages(model)]
    steps = randomised(model, study.recipe(variant), options.seed)
    for _, changed in track(steps, len(names), "randomising"):
        columns.append(similarities(heat, heat_of(changed, tests, options.batch_size)))
    others, *by_stage, residue = _pairs([*columns, columns[-1] - columns[0]], table, study)
    return {
        "others": others,
        "stages": [{"name": n} | pair for n, pair in zip(names, by_stage, strict=True)],
        "residue": residue,
        "verdict": place(residue["rank"]),
    }


def _pairs(columns: list[NDArray], table: pd.DataFrame, study: Study) -> list[dict[str, Any]]:
    """Means of both similarities, with their intervals, from columns of (N, 2) each."""
    intervals = mean_intervals(np.concatenate(columns, axis=1), table, study.statistics)
    return [{"ssim": a, "rank": b} for a, b in zip(intervals[::2], intervals[1::2], strict=True)]


def check_agreement(heats: NDArray, tests: TestImages, study: Study) -> dict[str, Any] | None:
    """Similarity between the maps of a variant's seeds, (K, N, S, S), mean over pairs of seeds.

    None for a single seed. ``others`` compares each map with the other seed's map of another
    patient, ``gain`` is the difference, ``verdict`` how its rank correlation lies.
    """
    count = len(heats)
    if count < 2:
        return None
    partner = derangement(tests.table.patient.to_numpy(), study.explanation.seed)
    pairs = list(combinations(range(count), 2))
    same = np.mean([similarities(heats[a], heats[b]) for a, b in pairs], axis=0)  # (N, 2)
    other = np.mean([similarities(heats[a], heats[b][partner]) for a, b in pairs], axis=0)
    seeds, others, gain = _pairs([same, other, same - other], tests.table, study)
    return {
        "pairs": len(pairs),
        "seeds": seeds,
        "others": others,
        "gain": gain,
        "verdict": place(gain["rank"]),
    }


def check_stability(
    model: nn.Module, tests: TestImages, heat: NDArray, study: Study
) -> dict[str, Any]:
    """How far noise that nobody would see moves a map: maximum sensitivity (Yeh et al. 2019).

    For each image the largest distance between its map (of ``heat``, N, S, S) and those of copies
    with uniform noise, over the map's own norm. ``others`` puts another patient's map in the copy's
    place, ``gain`` is noise minus that. Images without heat count in ``undefined`` only.
    """
    options, table = study.explanation, tests.table
    norms = np.linalg.norm(heat, axis=(1, 2))  # (N,)
    generator = torch.Generator().manual_seed(options.seed)
    largest = np.zeros(len(heat))
    for _ in track(range(DRAWS), DRAWS, "adding noise"):
        noise = NOISE * (2 * torch.rand(tests.images.shape, generator=generator) - 1)
        noisy = replace(tests, images=(tests.images / 255 + noise).clamp(0, 1))
        distance = np.linalg.norm(heat_of(model, noisy, options.batch_size) - heat, axis=(1, 2))
        largest = np.maximum(largest, distance)
    partner = derangement(table.patient.to_numpy(), options.seed)
    other = np.linalg.norm(heat[partner] - heat, axis=(1, 2))
    columns = np.stack([largest, other, largest - other], axis=1)[norms > 0]  # (n, 3)
    columns = columns / norms[norms > 0, None]
    noise, others, gain = mean_intervals(columns, table[norms > 0], study.statistics)
    return {
        "radius": NOISE,
        "draws": DRAWS,
        "undefined": int((norms == 0).sum()),
        "noise": noise,
        "others": others,
        "gain": gain,
        "verdict": place(gain),
    }
