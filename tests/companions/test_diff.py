"""The paper with its changes marked: what macros print, and the PDF of two versions."""

import re
import shutil
import subprocess
from collections import Counter

import pytest
from conftest import append, commit, replace

from hybridlungvit.companions import diff
from hybridlungvit.companions.diff import expand, flatten, meanings, write_diff
from hybridlungvit.io import StudyError, write_text
from hybridlungvit.paper.pdf import run_latex
from hybridlungvit.paths import Layout

WORD = re.compile(r"[a-z]+|[0-9.]*[0-9]", re.IGNORECASE)
MACROS = r"""\phantomtrue
\setstudy{seedcount}{3~seeds}{}
\setstudy{positiveclass}{pneumonia}{}
\setstudy{level}{95}{}
\setstudy{nested}{at \given{level}\,\%}{}
\setstudy{price}{$+0.30$ (\ensuremath{-0.10})}{}
\setstudy{result/auc/no_seg}{0.969 (95\,\%~CI 0.951 to~0.981)}{}
\setstudy{sd/auc}{0.006}{}
\setstudy{name/midline}{midline cut, no {lung} mask}{}
\setstudy{difference/midline}{\ensuremath{-0.001}}{}
\setstudy{outcome/midline}{equivalent}{}
"""


@pytest.fixture
def known(tmp_path):
    write_text(tmp_path / "macros.tex", MACROS)
    write_text(tmp_path / "audit.tex", "\\setstudy{audit.near}{0.98}{record:audit}\n")
    write_text(tmp_path / "tables" / "main.tex", "\\begin{tabular}{l}\nAUC\n\\end{tabular}\n")
    return meanings(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\given{audit.near} and \given{nested}", r"0.98 and at 95\,\%"),
        (r"\result{auc}{no_seg}.", r"0.969 (95\,\%~CI 0.951 to~0.981)."),
        (r"\referencesd{auc}, \result {auc} {no_seg}", r"0.006, 0.969 (95\,\%~CI 0.951 to~0.981)"),
        (r"\given{price} \difference{midline}", r"$+$0.30 ($-$0.10) $-$0.001"),
        (r"\variantname{midline}: \outcome{midline}", "midline cut, no {lung} mask: equivalent"),
        (r"\seedcount{} of \positiveclass\ x", r"3~seeds{} of pneumonia\ x"),
        (r"\positiveclass and", "pneumoniaand"),  # as TeX reads it
        (r"\ifgiven{level}{\ifgivenis{level}{90}{a}{b}}{c}", "b"),
        (r"\ifgiven{level}{\positiveclass}{} x", "pneumonia{} x"),
        (r"\ifphantom x\else\ifgiven{level}{a}{b}\fi", r"\ifphantom x\else a\fi"),
        (r"\ifgivenis{unknown}{x}{a}{b}\ifcompared{no_seg}{c}{d}", "bd"),
        (r"\ifverdict{midline}{h}{l}{\textbf{e}}{u}", r"\textbf{e}"),
        (r"\given{unknown} \ifverdict{no_seg}{h}{l}{e}{u}", None),
        (r"\newcommand\given[1]{#1} \ifphantom x\fi \result{auc}", None),
    ],
)  # fmt: skip
def test_commands_are_replaced_by_what_they_print(known, text, expected):
    assert expand(text, known) == (text if expected is None else expected)


def test_a_table_stands_in_the_text_and_one_with_other_columns_is_said_to(known, tmp_path):
    text = expand(r"\generatedtable{main}", known)
    assert "\\begin{tabular}{l}\nAUC\n\\end{tabular}" in text and "markup" not in text
    rebuilt = expand(r"\generatedtable{main}", meanings(tmp_path, {"main"}))
    assert rebuilt.startswith(r"\begin{DIFnomarkup}") and "other columns" in rebuilt


def test_what_is_missing_is_told(study, tmp_path, monkeypatch):
    layout = Layout("tiny")
    monkeypatch.chdir(tmp_path)
    for name, package in (("latexdiff", "latexdiff"), ("ulem.sty", "texlive-plain-generic")):
        monkeypatch.setattr(diff, "found", lambda asked, name=name: asked != name)
        with pytest.raises(StudyError, match=rf"{name}: not found.*apt-get install {package}"):
            write_diff(study, layout, "HEAD")
    monkeypatch.setattr(diff, "found", lambda name: True)
    with pytest.raises(StudyError, match="gone: no git revision with a folder paper/"):
        write_diff(study, layout, "gone")
    with pytest.raises(StudyError, match=r"no macros\.tex, so that there is no paper of tiny"):
        flatten(tmp_path / "paper", "tiny")
    write_text(tmp_path / "paper" / "main.tex", "")
    commit(tmp_path, "paper")
    with pytest.raises(StudyError, match="HEAD: no paper of tiny in this git revision"):
        write_diff(study, layout, "HEAD")


def printed(pdf):
    done = subprocess.run(["pdftotext", pdf, "-"], capture_output=True, text=True, check=True)
    return " ".join(done.stdout.replace(":", "").split())  # latexdiff's waves are made of colons


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs pdftotext")
def test_the_flattened_manuscript_prints_what_the_paper_prints(finished_copy):
    layout = Layout("tiny")
    (layout.paper / "flat.tex").write_text(flatten(layout.paper, "tiny"))
    assert run_latex("flat", "flat.tex", layout.paper, ".").returncode == 0
    # By word: paragraphs break elsewhere, so that figures stand between others of them.
    flat, paper = (printed(layout.paper / name) for name in ("flat.pdf", "tiny.pdf"))
    assert Counter(WORD.findall(flat)) == Counter(WORD.findall(paper))


@pytest.mark.slow
@pytest.mark.skipif(not all(map(diff.found, diff.NEEDED)), reason="needs latexdiff and ulem.sty")
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs pdftotext")
def test_changed_numbers_words_and_tables_are_marked(finished_copy, tmp_path):
    layout = Layout("tiny")
    commit(tmp_path, "paper")
    macros = layout.generated / "macros.tex"
    replace(macros, r"\setstudy{test.images}{30}", r"\setstudy{test.images}{31}")
    replace(layout.generated / "tables" / "main.tex", "Without TTA", "Unmirrored")
    replace(layout.generated / "tables" / "split.tex", r"\begin{tabular}{", r"\begin{tabular}{@{}")
    append(layout.paper / "sections" / "results.tex", "\nA sentence was added here.\n")
    assert write_diff(finished_copy, layout, "HEAD") == layout.paper / "tiny-diff.pdf"
    text = printed(layout.paper / "tiny-diff.pdf")
    for words in ("30 31", "Without TTA Unmirrored", "A sentence was added here.", "other columns"):
        assert words in text
