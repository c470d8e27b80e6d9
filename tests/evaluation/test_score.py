"""Scoring a training for all variants that share it gives what scoring each alone gives."""

import numpy as np
import pytest
import torch
from conftest import opened
from sklearn.metrics import f1_score

from hybridlungvit.data.augment import to_input
from hybridlungvit.evaluation.bootstrap import PatientClusters
from hybridlungvit.evaluation.evaluate import segmentation_records
from hybridlungvit.evaluation.predictions import segmentations_on
from hybridlungvit.evaluation.score import load_run, score, score_family
from hybridlungvit.io import StudyError
from hybridlungvit.model.inference import pneumonia_probability
from hybridlungvit.training.loop import train


def test_scoring_a_family_writes_the_bytes_of_each_run_alone(study, layout):
    for seed in study.seeds:
        train(study, "no_seg", seed, layout)
    alone = {}
    for variant in ("no_tta", "no_seg"):
        for seed in reversed(study.seeds):
            score(study, variant, seed, layout)
            path = layout.predictions(variant, seed)
            for file in (path, path.with_suffix(".json")):
                alone[file] = file.read_bytes()
                file.unlink()
    score_family(study, "no_seg", layout)
    written = (layout.root / "predictions").glob("*/*")
    assert {file: file.read_bytes() for file in written} == alone
    with pytest.raises(StudyError, match=r"run\.json"):
        score_family(study, "seg_0.1", layout)


def test_a_segmentation_head_is_compared_with_the_masks_image_by_image(study, layout):
    train(study, "seg_0.1", 0, layout)
    train(study, "seg_0.1", 1, layout)
    tables = [score(study, "seg_0.1", seed, layout) for seed in study.seeds]
    manifest, cache = opened(layout)
    model = load_run(study, "seg_0.1", 0, layout)
    rows = np.flatnonzero(manifest.split != "train")
    images, masks = torch.from_numpy(cache.images[rows]), torch.from_numpy(cache.masks(rows))
    with torch.inference_mode():
        logits = model(to_input(images, model.stem.mean, model.stem.std), masks).segmentation
    for found, logit, mask in zip(tables[0].lung_dice, logits, masks, strict=True):
        lungs = logit.sigmoid() >= 0.5
        assert found == pytest.approx(f1_score(mask.flatten(), lungs.flatten(), zero_division=1))
    plain = pneumonia_probability(model, images, masks, tta=True).numpy()
    assert np.abs(tables[0].probability - plain).max() < 1e-6
    found = segmentations_on(study, "seg_0.1", layout)
    test = tables[0].split == "test"
    assert np.allclose(found["loss"][0], tables[0].lung_loss[test], rtol=1e-8)
    record = segmentation_records(
        PatientClusters.of(tables[0].label[test], tables[0].patient[test]), found, 200, 0.95, 0
    )
    means = [table.lung_dice[test].mean() for table in tables]
    assert record["dice"]["estimate"] == pytest.approx(np.mean(means))
    assert record["dice"]["low"] < record["dice"]["estimate"] < record["dice"]["high"]
    assert segmentations_on(study, "no_tta", layout) is None
