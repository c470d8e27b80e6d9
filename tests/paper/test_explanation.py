"""The words, numbers and pictures the paper gets from the records of the heat maps."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REPOSITORY

from hybridlungvit.config import study_from
from hybridlungvit.explain.cases import RULES
from hybridlungvit.paper.explanation import (
    focus_macros,
    focus_table,
    saliency_macros,
)
from hybridlungvit.paper.galleries import gradcam_gallery
from hybridlungvit.paper.record_figures import saliency_figure
from hybridlungvit.paper.style import save_figure, use_style


def interval(estimate, spread=0.1):
    low, high = (None, None) if spread is None else (estimate - spread, estimate + spread)
    return {"estimate": estimate, "low": low, "high": high}


def group(focus, over, name="all", called="all", undefined=0, spread=0.1):
    values = {"focus": focus, "focus_shuffled": 1.0, "focus_box": 0.5}
    values |= {"over_shuffled": over, "over_box": -0.001}
    counts = {"images": 12, "patients": 9, "undefined": undefined}
    measured = {key: interval(value, spread) for key, value in values.items()}
    return {"class": name, "called": called} | counts | measured


def facts(study, agreement=True):
    none = {"estimate": None, "low": None, "high": None}
    empty = group(1, 0, "normal", "wrong") | dict.fromkeys(
        ("focus", "focus_shuffled", "focus_box", "over_shuffled", "over_box"), none
    )
    lone = group(1.234, -0.5, "normal", "right", spread=None)
    groups = [group(1.5, 0.3, undefined=2), lone, empty]
    pair = {"ssim": interval(0.4), "rank": interval(0.2)}
    return SimpleNamespace(
        study=study,
        focus={
            "no_seg": {"groups": groups, "threshold": 0.4},
            "plain_deit": {"groups": [group(0.8, -0.3)], "threshold": 0.5},
        },
        saliency={
            "images": 8,
            "patients": 6,
            "sanity": {
                "stages": [{"name": "classifier"} | pair, {"name": "embedding"} | pair],
                "others": pair,
                "verdict": "above",
            },
            "faithfulness": {
                "removed": [0.1, 0.25, 0.5],
                "gradcam": [interval(-0.1), interval(-0.2), interval(-0.3)],
                "random": [interval(0.0)] * 3,
                "overall": interval(-0.2),
                "verdict": "below",
            },
            "agreement": {"seeds": pair, "others": pair, "verdict": "above"} if agreement else None,
        },
    )


def explanation_macros(facts):
    return {**dict(focus_macros(facts)), **dict(saliency_macros(facts))}


def test_words_follow_the_numbers(study):
    given = explanation_macros(facts(study))
    assert given["focus.own.focus"] == r"1.50 (95\,\%~CI 1.40 to~1.60)"
    assert given["focus.own.focus.verdict"] == "above"
    assert given["focus.own.over_shuffled"] == r"$+0.30$ (95\,\%~CI $+0.20$ to~$+0.40$)"
    assert given["focus.own.over_shuffled.verdict"] == "above"
    assert given["focus.own.over_box"].startswith("$+0.00$")  # no minus before a zero
    assert given["focus.own.over_box.verdict"] == "not distinguishable from"
    assert given["focus.own.focus_shuffled.verdict"] == "not distinguishable from"
    assert given["focus.own.undefined"] == "2"
    assert given["focus.plain.focus.verdict"] == "below"
    assert given["focus.plain.over_shuffled.verdict"] == "below"
    assert given["focus.plain.name"] == "plain DeiT"
    assert given["gradcam.threshold"] == "0.4"
    assert given["faithfulness.removed"] == "10, 25 and 50"
    assert given["faithfulness.verdict"] == "below"
    assert all(rule in given["gradcam.rules"] for rule in RULES)


def test_one_seed_or_no_plain_control_leave_their_words_out(study, tiny):
    given = explanation_macros(facts(study, agreement=False))
    assert not any(key.startswith("agreement") for key in given)
    alone = facts(study)
    alone.focus.pop("plain_deit")
    assert not any(key.startswith("focus.plain") for key in explanation_macros(alone))
    assert given["gradcam.attention"] == "shown"
    tiny["reference"] = "plain_deit"
    plain = facts(study_from(tiny, "tiny"))
    assert "gradcam.attention" not in explanation_macros(plain)


def test_the_text_asks_for_nothing_that_is_not_given(study):
    text = (REPOSITORY / "paper" / "sections" / "explanations.tex").read_text(encoding="utf-8")
    asked = set(re.findall(r"\\(?:given|ifgiven|ifgivenis)\{([^}]+)\}", text))
    assert asked - {"level"} <= set(explanation_macros(facts(study)))


def test_the_focus_table_prints_lone_and_missing_values(study):
    table, columns = focus_table(facts(study))
    assert len(columns) == table.shape[1]
    level = 100 * study.statistics.level
    own = table[rf"Own lungs ({level:g}\,\% CI)"].tolist()
    assert own == ["", "1.50 (1.40 to 1.60)", "1.23 (--)", "--", "", "0.80 (0.70 to 0.90)"]
    assert table["Own minus another's"][2] == "$-0.50$ (--)"
    assert table["Test images"].tolist() == [
        r"\emph{HybridLungViT}",
        r"\enspace All",
        r"\enspace Normal, right",
        r"\enspace Normal, wrong",
        r"\addlinespace \emph{Plain DeiT}",
        r"\enspace All",
    ]


def lines(axes, label):
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return list(line.get_xdata()), list(line.get_ydata())


def test_the_figure_shows_the_record(study, tmp_path):
    use_style()
    figure = saliency_figure(facts(study))
    left, right = figure.axes
    assert lines(left, "SSIM") == ([0, 1, 2], [1, 0.4, 0.4])
    assert lines(left, "Spearman correlation") == ([0, 1, 2], [1, 0.2, 0.2])
    assert [t.get_text() for t in left.get_xticklabels()] == ["trained", "classifier", "embedding"]
    assert lines(right, "Grad-CAM") == ([0, 10, 25, 50], [0, -0.1, -0.2, -0.3])
    save_figure(figure, tmp_path / "a.pdf")
    save_figure(saliency_figure(facts(study)), tmp_path / "b.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


@pytest.mark.parametrize("attention", [True, False])
def test_the_gallery_has_a_row_for_attention_where_there_is_one(tmp_path, attention):
    rng = np.random.default_rng(0)
    masks = np.zeros((2, 16, 16), bool)
    masks[:, 4:12, 3:13] = True
    arrays = {"attention": rng.random((2, 16, 16))} if attention else {}
    np.savez(
        tmp_path / "cases.npz",
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
    figure = gradcam_gallery(tmp_path / "cases.npz")
    assert len(figure.axes) == 2 * (2 + attention)
    assert "P(pneumonia) = 0.25" in figure.axes[0].get_title()
    if attention:
        shown = figure.axes[4].images[1].get_array()
        assert shown.max() == 1
        assert np.allclose(shown, arrays["attention"][0] / arrays["attention"][0].max())
