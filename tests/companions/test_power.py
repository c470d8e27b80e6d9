"""The table of what other numbers of seeds would show."""

import math

import numpy as np
import pandas as pd
import pytest
from made_up import save_predictions
from scipy import optimize, stats

from hybridlungvit.companions.power import show_power
from hybridlungvit.config import study_from
from hybridlungvit.io import StudyError
from hybridlungvit.paths import Layout

SEEDS = 3


@pytest.fixture
def scored(tiny, tmp_path):
    """A study of a reference and one other variant, with scores of either, (K, N)."""
    tiny["statistics"] = {"resamples": 4000}
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
            save_predictions(study, variant, seed, layout, table)
    return study, layout, labels, scores


def literal_components(labels, scores, resamples=4000):
    """Patients, both seeds' parts and Welch's freedom; AUCs by all pairs of images."""

    def aucs(kept):
        truth, pair = labels[kept] == 1, (scores["plain_deit"], scores["no_seg"])
        rows = np.stack(pair)[..., kept]  # (2, K, N)
        return (rows[..., truth][..., None] > rows[..., ~truth][..., None, :]).mean(axis=(2, 3))

    rng, draws = np.random.default_rng(7), []
    for _ in range(resamples):
        drawn = [rng.choice(np.arange(label, 60, 2), 30) for label in (0, 1)]
        pair = np.concatenate(drawn) * 2
        draws.append(aucs(np.concatenate([pair, pair + 1])))
    draws, squares = np.array(draws), aucs(np.arange(120)).var(axis=1, ddof=1)
    means = draws.mean(axis=2)
    interaction = (draws - means[..., None]).var(axis=0, ddof=1).sum() / (SEEDS - 1)
    patients = (means[:, 0] - means[:, 1]).var(ddof=1) - interaction / SEEDS
    welch = squares.sum() ** 2 / (squares**2).sum() * (SEEDS - 1)
    return patients, max(squares.sum(), interaction), welch / (SEEDS - 1)


def test_the_table_is_what_scipys_distributions_say(scored, capsys):
    study, layout, labels, scores = scored
    rows = show_power(study, layout, [10], margin=0.05)
    assert [row.seeds for row in rows] == [SEEDS, 10, math.inf]
    patients, between, freedom_each = literal_components(labels, scores)
    assert patients > 0
    for row in rows:
        part = 0 if math.isinf(row.seeds) else between / row.seeds
        error = math.sqrt(patients + part)
        freedom = freedom_each * (row.seeds - 1) * (error**2 / part) ** 2 if part else 1e9

        def finds(gap, error=error, freedom=freedom):
            critical, shift = stats.t.ppf(0.975, freedom), gap / error
            if freedom == 1e9:
                return stats.norm.sf(critical - shift) + stats.norm.cdf(-critical - shift)
            return stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift)

        detectable = optimize.brentq(lambda gap, finds=finds: finds(gap) - 0.8, 0, 8 * error)
        assert row.detectable == pytest.approx(detectable, rel=0.05)
        assert row.finds == pytest.approx(finds(0.05), abs=0.03)
    table = capsys.readouterr().out
    assert "3 (own)" in table and "endless" in table and f"{rows[1].detectable:.4f}" in table


@pytest.mark.parametrize(
    ("seeds", "margin", "words"), [([1], None, "at least 2"), ([3], 0.0, "margin 0")]
)
def test_a_design_without_an_answer_is_refused(scored, seeds, margin, words):
    study, layout, *_ = scored
    with pytest.raises(StudyError, match=words):
        show_power(study, layout, seeds, margin)


def test_variants_that_never_differ_have_dashes(scored, capsys):
    study, layout, *_ = scored
    for seed in study.seeds:
        table = pd.read_csv(layout.predictions("no_seg", seed), dtype={"patient": str})
        save_predictions(study, "plain_deit", seed, layout, table.assign(probability=table.label))
        save_predictions(study, "no_seg", seed, layout, table.assign(probability=table.label))
    assert all(math.isnan(row.detectable) for row in show_power(study, layout, [5]))
    assert "--" in capsys.readouterr().out
