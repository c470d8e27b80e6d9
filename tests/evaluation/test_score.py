"""Scoring a training for all variants that share it gives what scoring each alone gives."""

import pytest

from hybridlungvit.evaluation.predictions import evaluated_from
from hybridlungvit.evaluation.score import score, score_family
from hybridlungvit.io import StudyError
from hybridlungvit.training.loop import train


def test_a_family_is_a_training_and_what_is_evaluated_from_it(study):
    assert evaluated_from(study, "no_seg") == ["no_seg", "no_tta"]
    assert evaluated_from(study, "plain_deit") == ["plain_deit"]
    owners = study.trained_variants()
    members = [variant for owner in owners for variant in evaluated_from(study, owner)]
    assert sorted(members) == sorted(study.variants)


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
