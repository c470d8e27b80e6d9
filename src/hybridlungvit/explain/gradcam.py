"""Grad-CAM (Selvaraju et al. 2017) on the projected feature map, for cases chosen by a rule."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from hybridlungvit.config import Study
from hybridlungvit.data.augment import to_input
from hybridlungvit.data.cache import open_cache
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.device import prepare_device
from hybridlungvit.errors import StudyError
from hybridlungvit.evaluation.predict import load_run
from hybridlungvit.evaluation.predictions import read_predictions
from hybridlungvit.files import replacing
from hybridlungvit.model import HybridLungViT
from hybridlungvit.model.tokens import cut_positions
from hybridlungvit.paths import Layout

NO_GRADIENT = "Grad-CAM: no gradient reaches the feature map; are its layers frozen?"
RULES = ("surest right", "surest wrong", "nearest the threshold")


class _Logits(nn.Module):
    """The model as grad-cam wants it, images to logits; the masks enter by closure."""

    def __init__(self, model: nn.Module, masks: Tensor) -> None:
        super().__init__()
        self.model, self.masks = model, masks

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs, self.masks).logits


def gradcam_maps(
    model: nn.Module, images: Tensor, masks: Tensor, target: int
) -> NDArray[np.float32]:
    """Heat in [0, 1], float32 (B, S, S), for one class: 0 normal, 1 pneumonia.

    ``images`` uint8 (B, S, S) and ``masks`` bool (B, S, S). The hybrid is read at its projected
    feature map, the plain control at the input of its last block, where patch tokens still matter.
    Raises ``StudyError`` when no gradient reaches that layer, which would give an empty map.
    """
    hybrid = isinstance(model, HybridLungViT)
    layer = model.project if hybrid else model.stem.vit.blocks[-1].norm1
    reshape = None if hybrid else model.stem.feature_map
    if not any(p.requires_grad for p in (*model.stem.parameters(), *layer.parameters())):
        raise StudyError(NO_GRADIENT)  # grad-cam itself would fail without saying why
    inputs = to_input(images, model.stem.mean, model.stem.std)
    targets = [ClassifierOutputTarget(target)] * len(images)
    with GradCAM(_Logits(model, masks), [layer], reshape) as cam:
        heat = cam(inputs, targets)
        flows = any(bool(g.abs().sum() > 0) for g in cam.activations_and_grads.gradients)
    if not flows:
        raise StudyError(NO_GRADIENT)
    return heat


def choose_cases(table: pd.DataFrame, threshold: float) -> Iterator[tuple[int, str]]:
    """Row index and rule of the cases to show: three for each class, the class's order.

    Surest right and surest wrong: the most extreme probability on that side of the threshold;
    nearest: the smallest distance to it. A rule without a case (no error made) yields nothing.
    """
    for label in (0, 1):
        rows = table[table.label == label]
        toward = rows.probability if label else 1 - rows.probability
        right = (rows.probability >= threshold) == bool(label)
        distance = (rows.probability - threshold).abs()
        candidates = (toward[right], 1 - toward[~right], -distance)
        for rule, values in zip(RULES, candidates, strict=True):
            if len(values):
                yield int(values.idxmax()), rule


def explain_variant(study: Study, variant: str, layout: Layout) -> None:
    """Write images, masks, cuts and Grad-CAM of the chosen test cases of the first seed."""
    recipe, seed = study.recipe(variant), study.seeds[0]
    device = prepare_device(recipe.compute)
    manifest = read_manifest(layout.manifest)
    cache = open_cache(layout, manifest, recipe.data.image_size)
    predictions = read_predictions(study, variant, seed, layout)
    tests = predictions[predictions.split == "test"]
    index, rules = zip(*choose_cases(tests, recipe.evaluation.threshold), strict=True)
    cases = tests.loc[list(index)]
    rows = manifest.reset_index().set_index("path").loc[cases.path, "index"].to_numpy()
    images = torch.from_numpy(cache.images[rows]).to(device)
    masks = torch.from_numpy(cache.masks(rows)).to(device)
    model = load_run(study, variant, seed, layout).to(device)
    heat = gradcam_maps(model, images, masks, target=1)
    with replacing(layout.gradcam(variant)) as temporary:
        np.savez_compressed(
            temporary,
            images=images.cpu().numpy(),
            masks=masks.cpu().numpy(),
            cuts=cut_positions(masks).cpu().numpy(),
            heat=heat.astype(np.float16),
            rule=np.array(rules),
            label=cases.label.to_numpy(),
            probability=cases.probability.to_numpy(),
            path=cases.path.to_numpy().astype(str),
        )
