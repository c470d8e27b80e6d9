"""Published results on the same images, checked and set beside those of the study."""

import string
from typing import Annotated, Literal, Self

import pandas as pd
from pydantic import Field, model_validator

from hybridlungvit.config import read_model
from hybridlungvit.config import Fraction, Positive, Section
from hybridlungvit.data.manifest import unit_of
from hybridlungvit.io import StudyError
from hybridlungvit.paths import Layout
from hybridlungvit.paper.results import Facts, format_interval, number, tex
from hybridlungvit.paper.manuscript import bibliography_keys

Text = Annotated[str, Field(min_length=1)]
DATA = {
    "phantom": "synthetic phantoms",
    "folder": "Kermany radiographs",
    "mendeley": "Kermany radiographs",
    "pneumoniamnist": "PneumoniaMNIST",
}
OFFICIAL = "official"
WIDTH = "17cm"  # of the notes below the table; the table itself is scaled to the line


class Published(Section):
    """One method of an article, as far as its values could be looked up."""

    method: Text
    year: Annotated[int, Field(ge=2018)]
    """The images were published in 2018."""
    cite: Text
    """Its key in ``references.bib``."""
    data: Text
    """The form of the images."""
    test_set: Text
    """``official`` for the published one."""
    test_images: Positive
    split_by: Literal["patients", "images", "not stated"]
    interval: bool
    """Whether the article gives intervals."""
    auc: Fraction | None = None
    accuracy: Fraction | None = None
    confirmed_by: Literal["article", "authors", "others"]
    confirmed: Text
    """In what kind of source the values were seen."""
    note: Text | None = None

    @model_validator(mode="after")
    def _gaps_are_explained(self) -> Self:
        if (self.auc is None or self.accuracy is None) and self.note is None:
            raise ValueError(f"{self.method}: a value is left out without a note that says why")
        return self


class Literature(Section):
    rows: Annotated[list[Published], Field(min_length=1)]


def read_literature(layout: Layout) -> list[Published]:
    """The rows of ``paper/literature.yaml``.

    Raises ``StudyError`` for a bad entry and for a citation that ``references.bib`` lacks.
    """
    path, known = layout.paper / "literature.yaml", bibliography_keys(layout.paper)
    rows = read_model(path, Literature).rows
    for place, row in enumerate(rows):
        if row.cite not in known:
            raise StudyError(
                f"{path}: rows.{place} ({row.method}): cite {row.cite!r} is no entry of "
                f"{layout.paper / 'references.bib'}. Add the entry or correct the key."
            )
    return rows


def literature_table(
    facts: Facts, published: list[Published]
) -> tuple[pd.DataFrame, str, tuple[str, ...]]:
    """Published values, and below them the study's own reference with its interval."""
    notes: list[str] = []
    rows = [_row(row, notes) for row in published]
    table = pd.DataFrame(rows)
    own = _own_row(facts, notes)
    footer = [r"\midrule" + "\n" + " & ".join(own[column] for column in table.columns)]
    lines = [rf"\textsuperscript{{{mark}}}~{tex(note)}" for mark, note in _marked(notes)]
    if not any(row.interval for row in published):
        lines.append("None of the values above the line is given with an interval.")
    lines.append(r"\textsuperscript{*}~Seen where others repeat it, not in the article itself.")
    footer += [
        rf"\multicolumn{{{len(table.columns)}}}{{@{{}}p{{{WIDTH}}}}}{{\footnotesize {line}}}"
        for line in lines
    ]
    footer[1] = r"\midrule" + "\n" + footer[1]
    return table, "llllllc", tuple(footer)


def _row(row: Published, notes: list[str]) -> dict[str, str]:
    marks = ["*"] if row.confirmed_by == "others" else []
    if row.note is not None:
        marks.append(_mark(row.note, notes))
    return _cells(
        f"{tex(row.method)}{_superscript(marks)}",
        rf"\citet{{{row.cite}}}",
        tex(row.data),
        _test_set(row.test_images, row.test_set),
        "n.s." if row.split_by == "not stated" else row.split_by,
        *("--" if value is None else number(value) for value in (row.auc, row.accuracy)),
    )


def _own_row(facts: Facts, notes: list[str]) -> dict[str, str]:
    study, record = facts.study, facts.metrics[facts.study.reference]
    phantom = study.data.source == "phantom"
    marks = []
    if phantom:
        marks = [_mark("Synthetic images: not comparable with any row above.", notes)]
    by_patient = unit_of(facts.manifest) == "patient" and study.data.validation_split == "patient"
    auc, accuracy = (record["headline"][name] for name in ("auc", "accuracy"))
    size = study.recipe(study.reference).data.image_size
    return _cells(
        f"{tex(study.variants[study.reference].label)}{_superscript(marks)}",
        "this study",
        f"{DATA[study.data.source]}, {size} px",
        _test_set(record["images"], "generated" if phantom else OFFICIAL),
        "patients" if by_patient else "images",
        format_interval(auc),
        number(accuracy["estimate"]),
    )


def _test_set(images: int, name: str) -> str:
    """How many test images, and which where they are not the published ones."""
    return f"{images:,}" if name == OFFICIAL else f"{images:,} ({tex(name)})"


def _cells(*values: str) -> dict[str, str]:
    columns = ("Method", "Source", "Data", "Test images", "Split by", "AUC", "Acc.")
    return dict(zip(columns, values, strict=True))


def _mark(note: str, notes: list[str]) -> str:
    """The letter of a note, which is the same for the same note."""
    if note not in notes:
        notes.append(note)
    return string.ascii_lowercase[notes.index(note)]


def _marked(notes: list[str]) -> list[tuple[str, str]]:
    return list(zip(string.ascii_lowercase, notes, strict=False))


def _superscript(marks: list[str]) -> str:
    return rf"\textsuperscript{{{','.join(marks)}}}" if marks else ""
