"""The table of what other numbers of seeds would show."""

import functools
import math

import numpy as np
import pandas as pd
import pytest
from made_up import save_predictions

from hybridlungvit.companions.cite import citation
from hybridlungvit.companions.power import show_power
from hybridlungvit.companions.readme import render_block
from hybridlungvit.config import study_from
from hybridlungvit.evaluation.compare import compare_variants
from hybridlungvit.evaluation.evaluate import evaluate_variant
from hybridlungvit.evaluation.power import (
    difference_power,
    equivalence_power,
    minimal_detectable_difference,
)
from hybridlungvit.evaluation.seeds import auc_difference_over_seeds
from hybridlungvit.io import StudyError
from hybridlungvit.paths import Layout

SEEDS = 3


@pytest.fixture
def scored(tiny, tmp_path):
    """A study of a reference and one other variant; labels, patients and scores of either."""
    tiny["statistics"] = {"resamples": 400, "margin": 0.05}
    tiny["seeds"] = list(range(SEEDS))
    tiny["variants"] = {name: tiny["variants"][name] for name in ("no_seg", "plain_deit")}
    study, layout = study_from(tiny, "tiny"), Layout("tiny", results=tmp_path)
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(60), 2)
    labels = patients % 2
    common = rng.normal(size=60)[patients] + rng.normal(size=120)
    scores = {}
    for variant in study.variants:
        quality = rng.normal(1.8, 0.3, (SEEDS, 1))
        own = rng.normal(0, 0.7, 60)[patients]  # of the variant and the patient, in every seed
        logits = quality * labels + common + own + rng.normal(0, 0.6, (SEEDS, 120))
        scores[variant] = 1 / (1 + np.exp(-logits))
        for seed, row in enumerate(scores[variant]):
            table = pd.DataFrame({
                "path": [f"{i}.png" for i in range(120)], "patient": patients.astype(str),
                "split": "test", "label": labels, "subtype": "", "probability": row,
            })  # fmt: skip
            table = pd.concat([table, table.assign(split="val")])  # for thresholds
            save_predictions(study, variant, seed, layout, table)
    facts = dict.fromkeys(("sha256", "width", "height", "mode", "bytes", "note"), 0)
    table.assign(**facts).to_csv(layout.manifest, index=False)
    compare_variants(study, layout)
    return study, layout, labels, patients, scores


def test_the_table_is_what_the_components_allow_and_others_are_refused(scored, capsys):
    study, layout, labels, patients, scores = scored
    rows = show_power(study, layout, [10])
    assert [row.seeds for row in rows] == [SEEDS, 10, math.inf]
    near = functools.partial(pytest.approx, rel=1e-4)  # of components that were written down
    pair, size = (scores["plain_deit"], scores["no_seg"]), (0.05, 400, 0.95, study.statistics.seed)
    plan = auc_difference_over_seeds(labels, *pair, patients.astype(str), *size).components
    for row in rows:
        assert row.detectable == near(minimal_detectable_difference(plan, row.seeds))
        assert row.finds == near(difference_power(plan, 0.05, row.seeds))
        assert row.equivalence == near(equivalence_power(plan, 0.05, row.seeds))
    table = capsys.readouterr().out
    assert "3 (own)" in table and "endless" in table and f"{rows[1].detectable:.4f}" in table
    with pytest.raises(StudyError, match="at least 2"):
        show_power(study, layout, [1])


def test_comparisons_of_an_earlier_state_are_not_told(scored):
    study, layout, *_ = scored
    masks = pd.read_csv(layout.manifest)[["path"]].assign(confidence=1.0, area=0.3, cut=0.5)
    masks.to_csv(layout.mask_table, index=False)
    evaluate_variant(study, "no_seg", layout)
    evaluate_variant(study, "plain_deit", layout)
    told = (
        lambda study: show_power(study, layout, [5]),
        lambda study: citation(study, "plain_deit", layout),
        lambda study: render_block(study, layout, picture=False),
    )
    for tell in told:
        tell(study)
    wider = study.statistics.model_copy(update={"margin": 0.1})
    other = study.model_copy(update={"statistics": wider})
    path = layout.predictions("plain_deit", 1)
    table = pd.read_csv(path, dtype={"patient": str})
    save_predictions(study, "plain_deit", 1, layout, table.assign(probability=table.label))
    evaluate_variant(study, "plain_deit", layout)  # and the run stopped before `compare`
    for tell in told:
        with pytest.raises(StudyError, match=r"compared with the margin"):
            tell(other)
        with pytest.raises(StudyError, match=r"comparisons\.json: made from predictions"):
            tell(study)


def test_variants_that_never_differ_have_dashes(scored, capsys):
    study, layout, *_ = scored
    for seed in study.seeds:
        table = pd.read_csv(layout.predictions("no_seg", seed), dtype={"patient": str})
        save_predictions(study, "plain_deit", seed, layout, table.assign(probability=table.label))
        save_predictions(study, "no_seg", seed, layout, table.assign(probability=table.label))
    compare_variants(study, layout)
    assert all(math.isnan(row.detectable) for row in show_power(study, layout, [5]))
    assert "--: undefined, as the component" in capsys.readouterr().out
