"""The lints, on a copy of the published manuscript that is broken in one place at a time."""

import re
import shutil

import pytest
from conftest import REPOSITORY, append, replace

from hybridlungvit.io import StudyError
from hybridlungvit.paper.lint import lint_text
from hybridlungvit.paper.manuscript import manuscript_paths
from hybridlungvit.paths import Layout


@pytest.fixture
def layout(tmp_path, monkeypatch):
    layout = Layout("kermany-cpu")
    macros = layout.generated / "macros.tex"
    files = manuscript_paths(REPOSITORY / "paper")
    files += [REPOSITORY / "paper" / name for name in ("references.bib", "allowed_numbers.yaml")]
    for file in [*files, REPOSITORY / macros]:
        copy = tmp_path / file.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    monkeypatch.chdir(tmp_path)
    return layout


def problems(layout):
    return "\n".join(map(str, lint_text(layout)))


def text_file(layout):
    return layout.paper / "sections" / "results.tex"


def decide(layout, variant, verdict):
    """Give a comparison another outcome."""
    macros = layout.generated / "macros.tex"
    line = re.search(rf"\\setstudy{{outcome/{variant}}}.*", macros.read_text())[0]
    replace(macros, line, rf"\setstudy{{outcome/{variant}}}{{{verdict}}}{{run:{variant}}}")


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("The AUC is 0.97.", "'0.97'"),
        (r"It rose by $12\,\%$.", "'12'"),
        ("Of 1,234 patients none was lost.", "'1,234'"),
        ("More than half of the errors are viral.", "'half of'"),
        ("It gained three percentage points.", "'three percentage points'"),
        (r"\textbf{95} of them", "'95'"),
        (r"\emph{See \ref{tab:main} for .5}", "'5'"),
        ("The AUC is 0.97 in all seeds.", "'0.97'"),
        (r"\citep[with 0.97][]{yang2023medmnist}", "'0.97'"),
        ("Fifteen test images were wrong.", "'Fifteen test images'"),
        ("Two-thirds of them.", "'Two-thirds of'"),
    ],
)
def test_a_typed_number_is_named_with_its_line(layout, words, number):
    lines = text_file(layout).read_text().count("\n")
    append(text_file(layout), f"\n{words}\n")
    where = f"{text_file(layout)}:{lines + 2}"
    assert f"{where}: the number {number} is typed by hand" in problems(layout)


def test_the_main_file_is_read_below_its_preamble(layout):
    append(layout.paper / "main.tex", "\nThe AUC is 0.999.\n")
    assert re.findall("the number '(.*)' is typed", problems(layout)) == ["0.999"]


def test_a_number_from_the_literature_needs_its_citation_in_the_paragraph(layout):
    entry = '- {file: results.tex, text: "an AUC of 0.968", kind: literature, why: published, '
    append(layout.paper / "allowed_numbers.yaml", entry + "cite: kermany2018cell}\n")
    text = "\nThey report an AUC of 0.968.\n\nElsewhere \\citep{kermany2018cell}.\n"
    append(text_file(layout), text)
    assert "does not cite that work" in problems(layout)
    cited = "of 0.968 \\citep{yang2023medmnist,kermany2018cell}.\n"
    replace(text_file(layout), "of 0.968.\n", cited)
    assert not problems(layout)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('{file: results.tex, text: "17 dwarfs", kind: size, why: none}', "does not occur in"),
        ('{file: results.tex, text: "1999", kind: year, why: old}', "needs `cite`"),
        ('{file: results.tex, text: "no digits", kind: size, why: none}', "no number"),
        ('{file: results.tex, text: "1", kind: size}', "why: Field required"),
    ],
)
def test_a_bad_entry_of_the_allowed_numbers_is_named(layout, entry, message):
    append(layout.paper / "allowed_numbers.yaml", f"- {entry}\n")
    try:
        text = problems(layout)
    except StudyError as error:
        text = str(error)
    assert re.search(f"allowed_numbers.yaml: .*{message}", text)


@pytest.mark.parametrize(
    "words", ["significantly higher", "it outperforms DeiT", "an improvement", "better than DeiT"]
)
def test_a_claim_needs_its_comparison(layout, words):
    decide(layout, "plain_deit", "lower")
    append(text_file(layout), f"\nThis is {words}. The difference is \\difference{{plain_deit}}.\n")
    assert "claims a difference without its comparison" in problems(layout)
    replace(text_file(layout), f"is {words}. The difference", f"is {words}: the difference")
    assert not problems(layout)
    append(
        text_file(layout),
        f"\n\\ifverdict{{plain_deit}}{{No.}}{{Yes: {words}.}}{{Equal.}}{{Neither.}}\n",
    )
    assert not problems(layout)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (r"It outperforms \difference{plain_deit}.", "is claimed, but plain_deit is neither"),
        (r"\ifverdict{plain_deit}{a}{b}{It outperforms.}", "is claimed, but plain_deit is neither"),
        (r"We outperform DeiT \citep{yang2023medmnist}.", "without its comparison"),
        (r"X outperforms DeiT \citep{nobody2020}.", "without its comparison"),
        (r"\ifcompared{plain_deit}{\difference{no_tta}}{}", "'plain_deit' print values of"),
        (r"See Table~\ref{tab:nowhere}.", r"no \label{tab:nowhere} exists"),
        (r"See \citep{nobody2020}.", "references.bib has no 'nobody2020'"),
        (r"\label{tab:main}", r"\label{tab:main} stands 2 times"),
        (r"\generatedtable{mine}", "no table 'mine'"),
        (r"\includegraphics{mine.pdf}", "mine.pdf is neither generated nor checked"),
        (r"\input{sections/sub/mine}", "sections/sub/mine is neither generated nor checked"),
        (r"\let\result\difference", "may change what a number prints"),
        (r"\renewcommand{\outcome}[1]{better}", "may change what a number prints"),
    ],
)
def test_false_claims_and_ways_round_the_lints_are_named(layout, words, message):
    decide(layout, "plain_deit", "undecided")
    append(text_file(layout), f"\n{words}\n")
    assert message in problems(layout)


@pytest.mark.parametrize(
    "words",
    [
        r"There was no significant difference: \difference{plain_deit}.",
        r"\citet{yang2023medmnist} outperforms DeiT.",
        "Three significant digits of the superior mediastinum, beat to beat, improved Euler.",
        r"\multicolumn{2}{c}{ResNet-50 and ViT-B/16}",
        "% a comment with 0.97",
        r"See Table~\ref{tab:main} and \citep[cf.][]{yang2023medmnist}.",
        r"\vspace{1.5ex}Both lungs, two seeds, SHA-256 and COVID-19.",
        r"\given{test.images} images",
    ],
)
def test_names_lengths_comments_and_words_that_claim_nothing_pass(layout, words):
    decide(layout, "plain_deit", "undecided")
    append(text_file(layout), f"\n{words}\n")
    assert not problems(layout)


def test_a_float_that_the_text_never_mentions_is_named(layout):
    table = "\\begin{table}\\caption{A}%s\\end{table}\n"
    labelled = table % "\\label{tab:new}\\ref{tab:new}"
    append(text_file(layout), "\n" + labelled + table % "")
    assert "the text never mentions table 'tab:new'" in problems(layout)
    assert "this table has no \\label" in problems(layout)
    replace(layout.paper / "sections" / "details.tex", "\\generatedfigure{roc}", "")
    assert "the generated figure 'roc' is shown nowhere" in problems(layout)
