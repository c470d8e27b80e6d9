"""Published results on the same images, checked and set beside those of the study."""

from string import ascii_lowercase as LETTERS
from typing import Annotated, Literal, Self

import pandas as pd
from pydantic import Field, model_validator

from hybridlungvit.config import Fraction, Positive, Section, read_model
from hybridlungvit.data.manifest import unit_of
from hybridlungvit.io import StudyError
from hybridlungvit.paper.booktabs import Table
from hybridlungvit.paper.contents import table
from hybridlungvit.paper.format import format_interval, number, source_names, tex
from hybridlungvit.paper.manuscript import bibliography_keys
from hybridlungvit.paper.results import StudyResults
from hybridlungvit.paths import Layout

Text = Annotated[str, Field(min_length=1)]
OFFICIAL = "official"
COLUMNS = ["Method", "Source", "Data", "Test images", "Split by", "AUC", "Acc."]
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


@table
def literature(results: StudyResults) -> Table:
    """Published results on the same test images beside the reference of this study.

    It ranks nobody: the notes below it tell what cannot be compared.
    """
    published = read_literature(results.layout)
    notes: list[str] = []
    rows = pd.DataFrame([_published_row(row, notes) for row in published], columns=COLUMNS)
    reference = " & ".join(_reference_row(results, notes))
    lines = [rf"{_superscript(LETTERS[i])}~{tex(note)}" for i, note in enumerate(notes)]
    if not any(row.interval for row in published):
        lines.append("None of the values above the line is given with an interval.")
    lines.append(rf"{_superscript('*')}~Seen where others repeat it, not in the article itself.")
    cell = rf"\multicolumn{{{len(COLUMNS)}}}{{@{{}}p{{{WIDTH}}}}}"
    footer = [reference, *(rf"{cell}{{\footnotesize {line}}}" for line in lines)]
    footer[:2] = [f"\\midrule\n{line}" for line in footer[:2]]
    return rows, "llllllc", tuple(footer)


def _published_row(row: Published, notes: list[str]) -> list[str]:
    marks = ["*"] if row.confirmed_by == "others" else []
    if row.note is not None:
        marks.append(_letter(row.note, notes))
    return [
        tex(row.method) + _superscript(*marks),
        rf"\citet{{{row.cite}}}",
        tex(row.data),
        _test_set(row.test_images, row.test_set),
        "n.s." if row.split_by == "not stated" else row.split_by,
        number(row.auc),
        number(row.accuracy),
    ]


def _reference_row(results: StudyResults, notes: list[str]) -> list[str]:
    study, record = results.study, results.reference
    phantom = study.data.source == "phantom"
    marks = []
    if phantom:
        marks = [_letter("Synthetic images: not comparable with any row above.", notes)]
    by_patient = unit_of(results.manifest) == "patient" and study.data.validation_split == "patient"
    size = study.recipe(study.reference).data.image_size
    return [
        tex(study.variants[study.reference].label) + _superscript(*marks),
        "this study",
        f"{source_names(study.data)[1]}, {size} px",
        _test_set(record["images"], "generated" if phantom else OFFICIAL),
        "patients" if by_patient else "images",
        format_interval(record["headline"]["auc"]),
        number(record["headline"]["accuracy"]["estimate"]),
    ]


def _test_set(images: int, name: str) -> str:
    """How many test images, and which where they are not the published ones."""
    return f"{images:,}" if name == OFFICIAL else f"{images:,} ({tex(name)})"


def _letter(note: str, notes: list[str]) -> str:
    """The letter of a note, which is the same for the same note."""
    if note not in notes:
        notes.append(note)
    return LETTERS[notes.index(note)]


def _superscript(*marks: str) -> str:
    return rf"\textsuperscript{{{','.join(marks)}}}" if marks else ""
