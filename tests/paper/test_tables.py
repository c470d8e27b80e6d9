"""Numbers as text, tables, curves, figures and the PDF."""

import math
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve, roc_curve

from hybridlungvit.config import study_from
from hybridlungvit.io import StudyError, replacing, write_text
from hybridlungvit.paper import error_tables, statistics_tables, tables
from hybridlungvit.paper.contents import FIGURES, GALLERIES, TABLES
from hybridlungvit.paper.figures import roc_curves
from hybridlungvit.paper.macros import scientific
from hybridlungvit.paper.pdf import build_pdf
from hybridlungvit.paper.results import (
    crowded,
    format_interval,
    number,
    signed,
    tex,
    tex_interval,
    tex_signed,
)
from hybridlungvit.paper.statistics_figures import GRID, precision_curves
from hybridlungvit.paper.style import COLUMN_WIDTH, line_of, save_figure, use_style
from hybridlungvit.paths import Layout

# Text


def test_tex_escapes_every_special_character():
    expected = r"\textbackslash{}\{\}\$\&\#\_\%\textasciitilde{}\textasciicircum{}"
    assert tex("\\{}$&#_%~^") == expected
    assert tex("50% of seg_0.1 & more") == r"50\% of seg\_0.1 \& more"
    assert tex("plain é (1)") == "plain é (1)"
    assert tex(5) == "5"


@given(st.text(st.sampled_from("ab \\{}$&#_%~^"), max_size=12))
def test_tex_can_be_read_back(text):
    names = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^"}
    pattern = r"\\(textbackslash|textasciitilde|textasciicircum)\{\}|\\([{}$&#_%])|([ab ])"
    read, end = [], 0
    for found in re.finditer(pattern, tex(text)):
        assert found.start() == end
        end = found.end()
        read.append(names.get(found[1]) or found[2] or found[3])
    assert end == len(tex(text))
    assert "".join(read) == text


def test_numbers_in_print():
    assert number(0.12345) == "0.123"
    assert number(0.9996) == "1.000"
    assert number(12.34, 1) == "12.3"
    assert number(None) == "--"
    assert signed(0.0123) == "+0.012"
    assert signed(-0.5, 2) == "-0.50"
    interval = {"estimate": 0.9123, "low": 0.85, "high": 0.99999}
    assert format_interval(interval) == "0.912 (0.850 to 1.000)"
    assert format_interval(interval, 1) == "0.9 (0.8 to 1.0)"
    assert format_interval(interval, 1, signed) == "+0.9 (+0.8 to +1.0)"
    level = r"95\,\%~CI"
    signs = rf"\ensuremath{{+0.9}} ({level} \ensuremath{{+0.8}} to~\ensuremath{{+1.0}})"
    assert tex_interval(interval, 0.95, 1, tex_signed) == signs


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5e-05, r"\ensuremath{5 \times 10^{-5}}"),
        (1e-4, r"\ensuremath{10^{-4}}"),
        (1e-3, r"\ensuremath{10^{-3}}"),
        (2.5e-6, r"\ensuremath{2.5 \times 10^{-6}}"),
        (3e-4, r"\ensuremath{3 \times 10^{-4}}"),
        (0.1, "0.1"),
        (0.01, "0.01"),
        (0, "0"),
        (999, "999"),
        (1000, r"\ensuremath{10^{3}}"),
        (-2e-5, r"\ensuremath{-2 \times 10^{-5}}"),
    ],
)
def test_scientific_numbers_in_print(value, expected):
    assert scientific(value) == expected


@given(st.floats(1e-12, 1e12))
@example(1e-7)
@example(1e5)
def test_scientific_can_be_read_back(value):
    text = scientific(value)
    if "ensuremath" in text:
        found = re.fullmatch(r"\\ensuremath\{(?:([\d.]+) \\times )?10\^\{(-?\d+)\}\}", text)
        read = float(found[1] or 1) * 10.0 ** int(found[2])
    else:
        read = float(text)
    assert read == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "$<0.001$"), (0.00099, "$<0.001$"), (0.001, "0.001"), (0.0456, "0.046"), (1, "1.000")],
)
def test_p_values_in_print(value, expected):
    assert statistics_tables.p_value(value) == expected


def test_every_table_has_its_function():
    for name in TABLES:
        owners = [module for module in tables.MODULES if hasattr(module, name)]
        assert len(owners) == 1, name
        function = getattr(owners[0], name)
        assert function.__module__ == owners[0].__name__
    assert len(set(TABLES)) == len(TABLES)
    assert len({*FIGURES, *GALLERIES}) == len(FIGURES) + len(GALLERIES)


# Curves


@st.composite
def scored(draw):
    levels = draw(st.sampled_from([3, 1000]))  # many ties, or hardly any
    row = st.tuples(st.integers(0, 1), st.integers(0, levels), st.integers(0, 2))
    labels, scores, weights = np.array(draw(st.lists(row, min_size=2, max_size=40))).T
    assume(weights[labels == 0].sum() > 0 and weights[labels == 1].sum() > 0)
    return labels, scores / levels, weights.astype(float)


@given(scored())
def test_roc_curve_is_scikit_learns(data):
    labels, scores, weights = data
    for row in (weights, np.ones(len(labels))):
        false, true, _ = roc_curve(labels, scores, sample_weight=row, drop_intermediate=False)
        found = roc_curves(labels, scores, row[None])
        assert found.shape == (1, len(GRID))
        assert np.allclose(found[0], np.interp(GRID, false, true), atol=1e-12)


def test_roc_curves_of_many_weights_are_those_of_each():
    rng = np.random.default_rng(0)
    labels, scores = np.arange(50) % 2, rng.normal(size=50).round(1)
    weights = rng.integers(1, 4, (5, 50)).astype(float)
    together = roc_curves(labels, scores, weights)
    for row, curve in zip(weights, together, strict=True):
        assert np.array_equal(roc_curves(labels, scores, row[None])[0], curve)
        assert (np.diff(curve) >= 0).all()
        assert curve[-1] == 1
    assert not np.array_equal(together[0], together[1])


def test_tied_scores_rise_in_one_slope():
    curve = roc_curves(np.array([0, 1, 0, 1]), np.full(4, 0.5), np.ones((1, 4)))
    assert np.allclose(curve[0], GRID)


# Figures


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


# PDF


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """A paper folder, and a PATH with nothing but the test's own programs."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    layout = Layout("tiny", results=tmp_path / "results", paper=tmp_path / "paper")
    layout.paper.mkdir()
    return layout, programs


def program(folder, name, *lines):
    (folder / name).write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    (folder / name).chmod(0o755)


def test_without_a_tex_engine_both_are_named(study, paper):
    with pytest.raises(StudyError, match=r"latexmk.*tectonic"):
        build_pdf(study, paper[0])


@pytest.mark.parametrize("engine", ["latexmk", "tectonic"])
def test_a_tex_error_is_shown_and_the_earlier_pdf_stays(study, paper, engine):
    layout, programs = paper
    layout.pdf.write_bytes(b"earlier")
    log = layout.paper / "build" / "tiny" / "tiny.log"
    text = "noise\\n! Undefined control sequence.\\nl.7 \\\\nonsense\\n"
    program(programs, engine, f"printf '{text}' > '{log}'", "exit 1")
    with pytest.raises(StudyError) as caught:
        build_pdf(study, layout)
    message = str(caught.value)
    assert "! Undefined control sequence.\nl.7 \\nonsense" in message
    assert str(log) in message
    assert "noise" not in message
    assert layout.pdf.read_bytes() == b"earlier"


def test_success_without_a_pdf_is_an_error_with_the_output(study, paper):
    layout, programs = paper
    program(programs, "latexmk", "echo nothing to do")
    with pytest.raises(StudyError, match=r"(?s)LaTeX failed.*nothing to do"):
        build_pdf(study, layout)


@pytest.mark.parametrize("engine", ["latexmk", "tectonic"])
def test_the_pdf_is_put_in_place_and_made_with_a_fixed_date(study, paper, engine):
    layout, programs = paper
    result = layout.paper / "build" / "tiny" / "tiny.pdf"
    program(programs, engine, f'printf "%s of $SOURCE_DATE_EPOCH" "$*" > \'{result}\'')
    build_pdf(study, layout)
    text = layout.pdf.read_text()
    assert text.endswith("of 0")
    assert {"latexmk": r"-usepretex=\def\study{tiny}", "tectonic": "tiny.tex"}[engine] in text


# Files


def test_replacing_puts_whole_new_content_in_place(tmp_path):
    path = tmp_path / "new" / "file.csv"
    for content in ("first", "second" * 100_000, "é"):
        with replacing(path) as temporary:
            assert temporary.parent == path.parent
            assert temporary.suffix == ".csv"
            temporary.write_text(content, encoding="utf-8")
            assert not path.exists() or path.read_text(encoding="utf-8") != content
        assert path.read_text(encoding="utf-8") == content
        assert list(path.parent.iterdir()) == [path]
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert path.stat().st_mode == ordinary.stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, StudyError])
def test_replacing_leaves_the_old_file_when_the_block_raises(tmp_path, error):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_in_words_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    words = r"file.txt: cannot be written \(No space left"
    with pytest.raises(StudyError, match=words), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_told_in_words(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match=r"file/a.txt: cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "x")


# Results in print


@given(scored())
def test_precision_curve_is_scikit_learns(data):
    labels, scores, weights = data
    for row in (weights, np.ones(len(labels))):
        kept = row > 0
        precision, recall, _ = precision_recall_curve(
            labels[kept], scores[kept], sample_weight=row[kept]
        )
        found = precision_curves(labels, scores, row[None])[0]
        reached = [np.flatnonzero(recall[:-1] >= r - 1e-12)[-1] for r in GRID]
        assert np.allclose(found, precision[:-1][reached], atol=1e-12)


def interval(estimate, low, high, **more):
    return {"estimate": estimate, "low": low, "high": high, "undefined": 0.0} | more


def test_an_undefined_metric_is_a_dash_and_never_nan():
    assert format_interval(interval(None, None, None)) == "--"
    assert format_interval(interval(1.0, None, None)) == "1.000 (--)"
    assert tex_interval(interval(None, None, None), 0.95) == "undefined"
    assert tex_interval(interval(-1.0, None, None), 0.95) == r"\ensuremath{-1.000} (no interval)"


def test_the_share_of_seeds_is_that_of_the_variance():
    record = {"se_patients": 0.03, "se_seeds": 0.04, "sd": 0.05}
    assert statistics_tables.seed_share(record) == pytest.approx(64)
    assert statistics_tables.seed_share(record | {"sd": None}) is None
    assert statistics_tables.seed_share(record | {"se_patients": None}) is None


def difference(p_adjusted):
    calls = {"only_a": 3, "only_b": 1, "p_exact": 0.6, "p_clustered": 0.7}
    return interval(-0.02, -0.03, -0.01) | {
        "p_value": 0.01,
        "p_adjusted": p_adjusted,
        "verdict": "lower than",
        "delong": {"estimate": -0.015, "error": 0.01, "p_value": 0.0004},
        "mcnemar": {"fixed": calls},
    }


def test_exploratory_comparisons_are_marked(study):
    facts = SimpleNamespace(
        study=study, differences={"seg_0.1": difference(0.02), "no_tta": difference(None)}
    )
    table, _, footer = statistics_tables.comparisons(facts)
    assert table["$p$ (Holm)"].tolist() == ["0.020", r"0.010\rlap{$^*$}"]
    assert "exploratory" in footer[0]
    assert table["DeLong $p$"].tolist() == ["$<0.001$"] * 2
    assert table["Only right"].tolist() == ["3 / 1"] * 2
    del facts.differences["no_tta"]
    assert statistics_tables.comparisons(facts)[2] == ()


def test_the_ensemble_has_a_row_of_its_own_where_there_are_several_seeds(tiny):
    one = {"auc": interval(0.9, 0.8, 0.95, sd=0.01)}
    metrics = {"no_seg": {"headline": one, "ensemble": {"auc": interval(0.92, 0.83, 0.97)}}}
    for seeds, rows in (([0, 1], 2), ([0], 1)):
        facts = SimpleNamespace(
            study=study_from(tiny | {"seeds": seeds}, "x"), metrics=metrics, differences={}
        )
        table, _, _ = statistics_tables.main(facts)
        assert len(table) == rows
    found = statistics_tables.main(
        SimpleNamespace(study=study_from(tiny, "x"), metrics=metrics, differences={})
    )[0]
    assert found.iloc[1, 1] == "0.920 (0.830 to 0.970)"


# Looks


def test_a_variant_keeps_its_line_and_no_two_of_ten_share_one():
    lines = [(line_of(i)["color"], str(line_of(i)["ls"])) for i in range(10)]
    assert len(set(lines)) == 10
    assert len({dashes for _, dashes in lines[:7]}) == 7  # apart without colour


@pytest.mark.parametrize(
    ("aucs", "expected"), [([0.95, 0.96, 0.7], True), ([0.95, 0.7, 0.74], False), ([0.9], False)]
)
def test_the_roc_is_enlarged_where_most_curves_crowd(aucs, expected):
    metrics = {str(i): {"headline": {"auc": {"estimate": auc}}} for i, auc in enumerate(aucs)}
    assert crowded(SimpleNamespace(metrics=metrics)) is expected


@pytest.mark.parametrize(
    ("value", "text"),
    [(-0.5, r"\ensuremath{-0.500} (95\,\%~CI \ensuremath{-0.600} to~0.200)"),
     (0.1, r"0.100 (95\,\%~CI \ensuremath{-0.600} to~0.200)")],
)  # fmt: skip
def test_negative_numbers_of_the_text_have_a_true_minus(value, text):
    assert tex_interval({"estimate": value, "low": -0.6, "high": 0.2}, 0.95) == text


def test_bounds_of_quarters_have_three_digits():
    text = error_tables._three_digits
    assert text("0.102 to 0.15") == "0.102 to 0.150"
    assert text("0 to 1") == "0.00 to 1.00"
    assert text("9.5 to 123") == "9.50 to 123"
    for name in ("Bacterial", "NORMAL2-IM"):
        assert text(name) == name


def test_a_printed_figure_has_no_white_margin(tmp_path):
    use_style()
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 2))
    figure.set_layout_engine("none")
    axes.set_position((0.3, 0.3, 0.4, 0.4))
    save_figure(figure, tmp_path / "figure.pdf")
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+)", (tmp_path / "figure.pdf").read_bytes())
    width, height = (float(side) / 72 for side in box.groups())
    assert width < 0.6 * COLUMN_WIDTH
    assert height < 0.7 * 2
