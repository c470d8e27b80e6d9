"""From LaTeX to PDF, with pretended TeX engines."""

import shutil
from contextlib import suppress

import psutil
import pytest
from conftest import REPOSITORY

from hybridlungvit.io import StudyError
from hybridlungvit.paper import pdf
from hybridlungvit.paper.pdf import build_pdf
from hybridlungvit.paths import Layout


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
    with pytest.raises(StudyError, match=r"pdflatex.*tectonic"):
        build_pdf(study, paper[0])


@pytest.mark.parametrize("engine", ["pdflatex", "tectonic"])
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
    program(programs, "pdflatex", "echo nothing to do")
    build = layout.paper / "build" / "tiny"
    build.mkdir(parents=True)
    (build / "tiny.pdf").write_bytes(b"earlier")
    (build / "tiny.log").write_text("! An earlier error.")
    with pytest.raises(StudyError, match=r"(?s)LaTeX failed.*nothing to do"):
        build_pdf(study, layout)


def test_a_tex_that_never_ends_is_stopped_with_its_children(study, paper, monkeypatch):
    layout, programs = paper
    child = layout.paper / "child"
    program(programs, "pdflatex", f"/bin/sleep 300 & echo $! > '{child}'; wait")
    monkeypatch.setattr(pdf, "TIME_LIMIT", 1)
    with pytest.raises(StudyError, match="pdflatex was stopped after 1 s"):
        build_pdf(study, layout)
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(int(child.read_text()))
        psutil.wait_procs([process], timeout=10)  # a signal takes its time on a busy machine
        assert process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_a_manuscript_runs_no_program(study, tmp_path):
    layout = Layout("tiny", results=tmp_path / "results", paper=tmp_path / "paper")
    layout.paper.mkdir()
    started = r"\immediate\write18{touch started}"  # few are allowed by default
    listed = r"\openin1=|kpsewhich article.cls \ifeof1\else\immediate\write18{x}\errmessage{ran}\fi"
    named = "x`touch started`.idx"  # what latexmk would give makeindex, in a shell
    index = rf"\immediate\openout9={named} \typeout{{Writing index file {named}}}"
    text = [r"\documentclass{article}\begin{document}x", started, listed, index, r"\end{document}"]
    (layout.paper / "main.tex").write_text("\n".join(text))
    build_pdf(study, layout)
    assert layout.pdf.is_file()
    assert not list(tmp_path.rglob("started"))


@pytest.mark.parametrize(
    "text", [r"\pdfobj stream file {/etc/passwd}", "^^5cinput{x}", r"\\\input"]
)
def test_a_table_of_others_holds_nothing_but_a_table(study, paper, text):
    table = paper[0].generated / "tables" / "mask_benchmark.tex"
    table.parent.mkdir(parents=True)
    own = REPOSITORY / "paper/generated/kermany-cpu/tables/mask_benchmark.tex"
    table.write_text(own.read_text())
    with pytest.raises(StudyError, match="no TeX engine"):
        build_pdf(study, paper[0])
    table.write_text(own.read_text() + text)
    with pytest.raises(StudyError, match=r"mask_benchmark\.tex: holds other TeX"):
        build_pdf(study, paper[0])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_a_manuscript_reads_no_file_elsewhere(study, tmp_path):
    layout = Layout("tiny", results=tmp_path / "results", paper=tmp_path / "paper")
    layout.paper.mkdir()
    (tmp_path / "secret.tex").write_text("a password")
    text = (
        rf"\documentclass{{article}}\begin{{document}}\input{{{tmp_path}/secret}}\end{{document}}"
    )
    (layout.paper / "main.tex").write_text(text)
    with pytest.raises(StudyError, match="secret"):
        build_pdf(study, layout)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_what_an_earlier_build_left_is_not_read(study, tmp_path):
    layout = Layout("tiny", results=tmp_path / "results", paper=tmp_path / "paper")
    text = r"\documentclass{article}\begin{document}x\end{document}"
    for folder in (layout.paper, layout.paper / "build" / "tiny"):
        folder.mkdir(parents=True)
        (folder / "main.tex").write_text(text)
        text = r"\errmessage{of another}"
    build_pdf(study, layout)
    assert layout.pdf.is_file()


@pytest.mark.parametrize("engine", ["pdflatex", "tectonic"])
def test_the_pdf_is_put_in_place_and_made_with_a_fixed_date(study, paper, engine):
    layout, programs = paper
    result = layout.paper / "build" / "tiny" / "tiny.pdf"
    program(programs, engine, f'printf "%s of $SOURCE_DATE_EPOCH" "$*" > \'{result}\'')
    build_pdf(study, layout)
    text = layout.pdf.read_text()
    assert text.endswith("of 0")
    assert {"pdflatex": r"\def\study{tiny}\input{main.tex}", "tectonic": "tiny.tex"}[engine] in text
