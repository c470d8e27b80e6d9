"""Grad-CAM: a heat map that exists, depends on what it should, and the rule that picks cases."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import adopt, small_hybrid, small_plain

from hybridlungvit.config import study_from
from hybridlungvit.data.augment import to_input
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.evaluation.score import score
from hybridlungvit.explain.cases import RULES, choose_cases
from hybridlungvit.explain.gradcam import (
    gradcam_maps,
    heat_of,
    load_explained,
    load_tests,
    write_cases,
)
from hybridlungvit.io import StudyError
from hybridlungvit.model import PlainViT
from hybridlungvit.model.stem import Features
from hybridlungvit.paper.galleries import read_cases
from hybridlungvit.training.loop import train

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.fixture
def batch():
    masks = torch.zeros(3, 32, 32, dtype=torch.bool)
    masks[:, 8:24, 2:20] = True
    return torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8), masks


def parallel():
    """A stem whose blocks are parallel, so that the last has no first norm."""
    options = {"depth": 2, "embed_dim": 48, "num_heads": 2, "patch_size": 8}
    return PlainViT("vit_small_patch16_18x2_224", 32, stem_options=options).eval()


@pytest.mark.parametrize("make", [small_hybrid, small_plain, parallel])
def test_heat_is_a_map_that_depends_on_class_and_weights(make, batch):
    model = make()
    first, other = (gradcam_maps(model, *batch, target=t) for t in (0, 1))
    assert (other.shape, other.dtype) == ((3, 32, 32), np.float32)
    assert other.min() >= 0 and other.max() <= 1
    assert (np.ptp(other, axis=(1, 2)) > 0.5).all()
    assert np.abs(first - other).max() > 0.1
    assert np.array_equal(gradcam_maps(model, *batch, target=1), other)
    with torch.no_grad():
        for parameter in model.stem.vit.patch_embed.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    assert np.abs(gradcam_maps(model, *batch, target=1) - other).max() > 0.05


def test_heat_of_the_hybrid_is_grad_cam_by_hand(batch):
    model = small_hybrid()
    images, masks = batch
    found = gradcam_maps(model, images, masks, target=1)
    seen = model.stem(to_input(images, model.stem.mean, model.stem.std))
    features = model.project(seen.map(model.stem.grid)).detach()
    features.requires_grad_()
    model.project = torch.nn.Identity()
    patches = features.flatten(2).transpose(1, 2)
    logits = model.read(Features(patches[:, 0], patches), masks).logits
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), features)
    cam = F.relu((gradient.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True)).detach()
    cam = F.interpolate(cam, size=(32, 32), mode="bilinear", align_corners=False)[:, 0]
    low, high = cam.amin((1, 2), keepdim=True), cam.amax((1, 2), keepdim=True)
    expected = ((cam - low) / (high - low)).numpy()
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize(
    ("make", "spoiled"),
    [(small_hybrid, ("stem", "project")), (small_plain, ("stem",)), (small_hybrid, None)],
)
def test_a_map_without_gradient_is_an_error_and_not_empty(make, spoiled, batch):
    model = make()
    for part in spoiled or ():
        getattr(model, part).requires_grad_(False)
    if spoiled is None:  # the graph stays whole, but lets nothing through
        torch.nn.init.zeros_(model.classify.weight)
    with pytest.raises(StudyError, match="no gradient reaches"):
        gradcam_maps(model, *batch, target=1)


# Cases


@pytest.mark.parametrize(
    ("normal", "pneumonia", "threshold", "expected"),
    [
        (
            [0.1, 0.3, 0.05, 0.7, 0.9, 0.45],
            [0.2, 0.99, 0.6, 0.52, 0.4, 0.01],
            0.5,
            {12: 0, 14: 1, 15: 2, 17: 0, 21: 1, 19: 2},
        ),
        # A class without errors has no surest wrong.
        ([0.1, 0.3], [0.8, 0.6], 0.5, {10: 0, 11: 2, 12: 0, 13: 2}),
        # Calls at another threshold.
        ([0.6, 0.85, 0.79], [0.7, 0.9, 0.81], 0.8, {10: 0, 11: 1, 12: 2, 14: 0, 13: 1, 15: 2}),
    ],
)
def test_cases_are_the_extremes_of_each_class(normal, pneumonia, threshold, expected):
    rows = [(0, p) for p in normal] + [(1, p) for p in pneumonia]
    table = pd.DataFrame(rows, columns=["label", "probability"], index=range(10, 10 + len(rows)))
    found = list(choose_cases(table, threshold))
    assert found == [(row, RULES[rule]) for row, rule in expected.items()]


def test_explained_cases_belong_to_the_test_set_and_to_each_other(tiny, trained, layout):
    other = {"label": "other", "description": "Another's mask", "model": {"mask": "other"}}
    tiny["variants"] = {"no_seg": tiny["variants"]["no_seg"], "swapped": other}
    tiny["statistics"]["family"] = []
    tiny["training"]["epochs"] = 1
    study = study_from(tiny, "tiny")
    train(study, "swapped", 0, layout)
    adopt(trained, layout)
    scored = score(study, "no_seg", 0, layout)
    tests = load_tests(study, "no_seg", layout)
    write_cases(study, "no_seg", tests, load_explained(study, "no_seg", 0, layout), layout)
    cases = read_cases(layout.gradcam("no_seg"))
    images = np.load(layout.images)
    manifest = read_manifest(layout.manifest)
    probability = scored.set_index("path").probability
    for i, path in enumerate(cases["path"]):
        row = manifest.index[manifest.path == path].item()
        assert path.startswith("test/")
        assert np.array_equal(cases["images"][i], images[row])
        assert cases["label"][i] == manifest.label[row]
        assert cases["probability"][i] == pytest.approx(probability[path])
        columns = np.nonzero(cases["masks"][i])[1] + 0.5
        assert abs(cases["cuts"][i] - columns.mean()) <= 0.5
    assert cases["heat"].shape == cases["images"].shape
    assert (cases["heat"].max(axis=(1, 2)) > 0).any()
    score(study, "swapped", 0, layout)
    seen = load_tests(study, "swapped", layout)
    heat = heat_of(load_explained(study, "swapped", 0, layout), seen, 30)
    rows = seen.table.reset_index().set_index("path").loc[cases["path"], "index"].to_numpy()
    assert np.allclose(cases["heat of swapped"], heat[rows], atol=2e-3)
    assert not np.array_equal(seen.masks.numpy()[rows], cases["masks"])
