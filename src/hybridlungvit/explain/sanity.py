"""Do the maps depend on what was learned? Cascading randomisation (Adebayo et al. 2018)."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hybridlungvit.config import Recipe, Study
from hybridlungvit.evaluation.paired import verdict
from hybridlungvit.explain.gradcam import TestImages, heat_of
from hybridlungvit.explain.similarity import derangement, mean_intervals, similarities
from hybridlungvit.model import HybridLungViT, build_model
from hybridlungvit.runtime import track

MEASURES = ("ssim", "rank")


def stages(model: nn.Module) -> list[tuple[str, list[str]]]:
    """Names of the model's parts from head to stem, each with its keys in the state dict.

    The segmentation head has no part in the classification and is in none of them.
    """
    depth = len(model.stem.vit.blocks)
    parts = [("classifier", ("classify.",))]
    if isinstance(model, HybridLungViT):
        parts.append(("cross-attention", ("fusion.cross_attention.", "fusion.norms.")))
        parts.append(("token encoders", ("fusion.",)))
        parts.append(("projection", ("project.",)))
    parts += [(f"block {i + 1}", (f"stem.vit.blocks.{i}.",)) for i in reversed(range(depth))]
    parts.append(("embedding", ("stem.",)))
    last = f"block {depth}"  # the norms after the last block go with it
    left = list(model.state_dict())
    named = []
    for name, prefixes in parts:
        if name == last:
            prefixes = (*prefixes, "stem.vit.norm.", "stem.vit.fc_norm.")
        named.append((name, [key for key in left if key.startswith(prefixes)]))
        left = [key for key in left if not key.startswith(prefixes)]
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
    own = model.state_dict()  # tensors shared with the model
    for name, keys in stages(model):
        for key in keys:
            own[key].copy_(fresh[key])
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
    columns.append(columns[-1] - columns[0])
    values = np.concatenate(columns, axis=1)  # (N, 2·(stages + 2))
    intervals = mean_intervals(values, table, study.statistics)
    pairs = [
        dict(zip(MEASURES, intervals[i : i + 2], strict=True)) for i in range(0, len(intervals), 2)
    ]
    return {
        "others": pairs[0],
        "stages": [{"name": n} | pair for n, pair in zip(names, pairs[1:-1], strict=True)],
        "residue": pairs[-1],
        "verdict": verdict(pairs[-1]["rank"]),
    }


def check_agreement(heats: NDArray, tests: TestImages, study: Study) -> dict[str, Any] | None:
    """Similarity between the maps of a variant's seeds, (K, N, S, S), mean over pairs of seeds.

    None for a single seed. ``others`` compares each map with the other seed's map of another
    patient, ``gain`` is the difference, ``verdict`` how its rank correlation lies.
    """
    count = len(heats)
    if count < 2:
        return None
    partner = derangement(tests.table.patient.to_numpy(), study.explanation.seed)
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    same = np.mean([similarities(heats[a], heats[b]) for a, b in pairs], axis=0)  # (N, 2)
    other = np.mean([similarities(heats[a], heats[b][partner]) for a, b in pairs], axis=0)
    values = np.concatenate([same, other, same - other], axis=1)  # (N, 6)
    intervals = mean_intervals(values, tests.table, study.statistics)
    seeds, others, gain = (
        dict(zip(MEASURES, intervals[i : i + 2], strict=True)) for i in (0, 2, 4)
    )
    return {
        "pairs": len(pairs),
        "seeds": seeds,
        "others": others,
        "gain": gain,
        "verdict": verdict(gain["rank"]),
    }
