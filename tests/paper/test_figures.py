"""The curves of the figures, what figures show, and how they look."""

import math
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from explained import explained
from hypothesis import assume, given
from made_up import scored_images
from scipy.stats import norm
from sklearn.metrics import roc_curve

from hybridlungvit.config import study_from
from hybridlungvit.explain.cases import RULES, other_variants
from hybridlungvit.paper import figures
from hybridlungvit.paper.figures import GRID, dose_response, power, roc_curves, saliency
from hybridlungvit.paper.format import heading
from hybridlungvit.paper.galleries import gradcam
from hybridlungvit.paper.manuscript import read_source
from hybridlungvit.paper.results import cut_distances
from hybridlungvit.paper.style import FULL_WIDTH, line_of, save_figure, use_style
from hybridlungvit.paths import Layout


@given(scored_images())
def test_roc_curve_is_scikit_learns(data):
    labels, scores, weights = data
    assume(weights[labels == 0].sum() > 0 and weights[labels == 1].sum() > 0)
    rows = np.stack([weights, np.ones(len(labels))])
    for row, curve in zip(rows, roc_curves(labels, scores, rows), strict=True):
        false, true, _ = roc_curve(labels, scores, sample_weight=row, drop_intermediate=False)
        assert np.allclose(curve, np.interp(GRID, false, true), atol=1e-12)


def draw(path):
    use_style()
    figure, axes = plt.subplots()
    axes.plot([0, 1], [0, math.pi], label="$a$")
    axes.set_title("Title é")
    axes.legend()
    save_figure(figure, path)
    return path.read_bytes()


def test_a_figure_drawn_again_has_the_same_bytes(tmp_path, monkeypatch):
    before = plt.get_fignums()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")  # what matplotlib would take for the date
    first = draw(tmp_path / "a.pdf")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    assert draw(tmp_path / "b" / "c.pdf") == first
    assert first.startswith(b"%PDF")
    assert b"CreationDate" not in first
    assert plt.get_fignums() == before


def test_a_variant_keeps_its_line_and_no_two_of_ten_share_one():
    lines = [(line_of(i)["color"], str(line_of(i)["ls"])) for i in range(10)]
    assert len(set(lines)) == 10
    assert len({dashes for _, dashes in lines[:7]}) == 7  # apart without colour


def test_a_printed_figure_has_no_white_margin(tmp_path):
    use_style()
    figure, axes = plt.subplots(figsize=(FULL_WIDTH, 2))
    figure.set_layout_engine("none")
    axes.set_position((0.3, 0.3, 0.4, 0.4))
    save_figure(figure, tmp_path / "figure.pdf")
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+)", (tmp_path / "figure.pdf").read_bytes())
    width, height = (float(side) / 72 for side in box.groups())
    assert width < 0.6 * FULL_WIDTH
    assert height < 0.7 * 2


def lines(axes, label):
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return list(line.get_xdata()), list(line.get_ydata())


def test_the_figure_shows_the_record(study):
    use_style()
    figure = saliency(explained(study))
    left, right = figure.axes
    assert lines(left, "SSIM") == ([0, 1, 2], [1, 0.4, 0.4])
    assert lines(left, "Spearman correlation") == ([0, 1, 2], [1, 0.2, 0.2])
    assert [t.get_text() for t in left.get_xticklabels()] == ["trained", "classifier", "embedding"]
    assert lines(right, "Grad-CAM") == ([0, 10, 25, 50], [0, -0.1, -0.2, -0.3])
    plt.close("all")


def test_each_seed_is_scaled_with_its_own_temperature(study, monkeypatch):
    bins = [{"estimate": 0.5, "predicted": 0.5, "low": None, "high": None}]
    state = {"bins": bins, "headline": {key: {"estimate": 1.0} for key in ("ece", "slope")}}
    told = {str(seed): 1.0 + seed for seed in reversed(study.seeds)}  # as another order left it
    calibration = {"temperatures": told, "before": state, "after": state}
    scores = np.array([[0.1 + 0.1 * seed, 0.9] for seed in study.seeds])
    images = pd.DataFrame({"label": [0, 1]})
    monkeypatch.setattr(figures, "scores_on", lambda *_: (images, scores))
    used = []
    monkeypatch.setattr(figures, "scaled", lambda row, t: used.append((row[0], t)) or row)
    reference = {"calibration": calibration}
    figures.reliability(SimpleNamespace(study=study, layout=None, reference=reference, level="95"))
    plt.close("all")
    assert used == [(0.1 + 0.1 * seed, 1.0 + seed) for seed in study.seeds]


def powered(study, **components):
    """A comparison with these components of its variance, and one of a single seed."""
    record = {"components": components | {"count": 3}, "degrees_of_freedom": None, "at_bound": []}
    differences = {"seg_0.1": record | {"detectable": 0.028}, "plain_deit": {"detectable": None}}
    return power(SimpleNamespace(study=study, differences=differences)).axes


def test_the_figure_of_power_shows_what_the_components_allow(study):
    """With seeds whose variance is known to be zero, the normal distribution's answer for any K."""
    axes, shares = powered(study, patients=1e-4, seeds=0.0, interaction=0.0)
    curve, margin = axes.lines
    assert list(curve.get_xdata()) == list(range(3, 51))
    expected = (norm.ppf(0.975) + norm.ppf(0.8)) * 0.01
    assert curve.get_ydata() == pytest.approx(np.full(48, expected), rel=1e-4)
    assert margin.get_ydata()[0] == study.statistics.margin
    assert [label.get_text() for label in shares.get_yticklabels()] == ["With segmentation"]
    # Of patients 2, of the interaction 6 and of the seeds 12, the latter two over 3 seeds.
    _, shares = powered(study, patients=2.0, seeds=12.0, interaction=6.0)
    assert [bar.get_width() for bar in shares.patches] == pytest.approx([25, 25, 50])
    assert [bar.get_x() for bar in shares.patches] == pytest.approx([0, 25, 50])
    axes, _ = powered(study, patients=0.0, seeds=0.0, interaction=0.0)  # too small for the record
    assert len(axes.lines) == 1  # the margin
    plt.close("all")


CUTS = {
    "shift_20": {"cut_shift": 0.2},
    "shift_5": {"cut_shift": 0.05},
    "midline": {"cut": "midline"},
    "swapped": {"mask": "other"},
    "anywhere": {"mask": "random"},
    "nowhere": {"cut": "none"},
}


def moved_cuts(tiny):
    """Two test images, cut at 0.4 and 0.6, and variants that move the cut, and others."""
    tiny["variants"] |= {
        name: {"label": name, "description": name, "model": model} for name, model in CUTS.items()
    }
    tiny["variants"]["both"] = {
        "label": "both", "description": "moves the cut and more",
        "model": {"cut_shift": 0.1}, "training": {"epochs": 2},
    }  # fmt: skip
    study = study_from(tiny, "tiny")
    manifest = pd.DataFrame({"path": ["a", "b", "c"], "split": ["test", "test", "train"]})
    masks = pd.DataFrame({"path": ["b", "a", "c"], "cut": [0.6, 0.4, 0.9]})
    names = [name for name in study.variants if name != study.reference]
    differences = {
        name: {"estimate": -0.01 * i, "low": -0.01 * i - 0.02, "high": -0.01 * i + 0.02}
        for i, name in enumerate(names)
    }
    return SimpleNamespace(study=study, manifest=manifest, masks=masks, differences=differences)


def test_the_distance_of_a_cut_from_the_references_is_its_mean_over_test_images(tiny):
    results = moved_cuts(tiny)
    distances = cut_distances(results)
    assert list(distances) == list(CUTS)  # nothing else moves the cut alone
    assert distances["shift_20"] == pytest.approx(20)
    assert distances["shift_5"] == pytest.approx(5)
    assert distances["midline"] == pytest.approx(10)
    # Of two images one has its own cut and one that is 20 % away, on average.
    assert distances["swapped"] == pytest.approx(10)
    columns = np.random.default_rng(0).uniform(0.25, 0.75, 200_000)
    expected = np.mean([np.abs(columns - 0.4).mean(), np.abs(columns - 0.6).mean()])
    assert distances["anywhere"] == pytest.approx(100 * expected, abs=0.2)
    assert distances["nowhere"] is None
    tiny["reference"] = "midline"
    results.study = study_from(tiny, "tiny")
    results.differences["no_seg"] = {}
    assert cut_distances(results)["no_seg"] == pytest.approx(10)
    for reference in ("nowhere", "swapped", "anywhere"):
        results.study = study_from(tiny | {"reference": reference}, "tiny")
        assert not cut_distances(results)


def test_the_dose_response_starts_at_the_reference_and_ends_where_nothing_is_cut(tiny):
    results = moved_cuts(tiny)
    (axes,) = dose_response(results).axes
    x, y = lines(axes, "Cut shifted")
    assert x == pytest.approx([0, 5, 20])
    effects = [results.differences[name]["estimate"] for name in ("shift_5", "shift_20")]
    assert y == pytest.approx([0, *effects])
    places = {name: lines(axes, name.capitalize())[0][0] for name in ("Midline", "Nowhere")}
    assert places["Midline"] == pytest.approx(10)
    assert places["Nowhere"] > 20
    plt.close("all")
    results.differences.clear()  # a study with nothing that moves the cut has an empty figure
    (axes,) = dose_response(results).axes
    assert lines(axes, "Cut shifted") == ([0], [0])
    plt.close("all")


@pytest.mark.parametrize("attention", [True, False])
def test_the_gallery_has_a_row_for_attention_where_there_is_one(study, tmp_path, attention):
    layout = Layout("tiny", results=tmp_path)
    path = layout.gradcam(study.reference)
    path.parent.mkdir(parents=True)
    rng = np.random.default_rng(0)
    masks = np.zeros((2, 16, 16), bool)
    masks[:, 4:12, 3:13] = True
    arrays = {"attention": rng.random((2, 16, 16))} if attention else {}
    others = other_variants(study, study.reference)
    arrays |= {f"heat of {other}": rng.random((2, 16, 16)) for other in others}
    np.savez(
        path,
        images=rng.integers(0, 256, (2, 16, 16), np.uint8),
        masks=masks,
        cuts=np.array([8.0, 7.5]),
        heat=rng.random((2, 16, 16)).astype(np.float16),
        rule=np.array(RULES[:2]),
        label=np.array([0, 1]),
        probability=np.array([0.25, 0.75]),
        **arrays,
    )
    use_style()
    figure = gradcam(study, layout)
    *panels, bar = figure.axes
    assert len(panels) == 2 * (2 + attention + len(others))
    assert (bar.get_ylabel(), bar.get_ylim()) == ("Share of the map's peak", (0, 1))
    assert [text.get_text() for text in figure.axes[0].texts] == ["Image, mask"]
    assert [axes.texts[0].get_text() for axes in panels[-2 * len(others) :: 2]] == [
        heading(study.variants[other].label) for other in others
    ]
    assert "P = 0.25" in figure.axes[0].get_title()
    if attention:
        shown = figure.axes[4].images[1].get_array()
        assert shown.max() == 1
        assert np.allclose(shown, arrays["attention"][0] / arrays["attention"][0].max())


def test_the_flow_types_no_number():
    text = read_source(REPOSITORY / "paper" / "figures" / "flow.tex").text
    text = re.sub(r"\\begin\{tikzpicture\}\[.*?\n  \]", "", text, flags=re.DOTALL)
    options, places = r"\[[^]]*\]", r"(?:\bat |\+\+)\([^)]*\)"
    assert not re.findall(r"\d", re.sub(f"{options}|{places}", "", text))
