"""What is known of these test images: published results, and earlier looks of this project."""

from string import ascii_lowercase as LETTERS
from typing import Annotated, Literal, Self

import pandas as pd
from pydantic import Field, model_validator

from hybridlungvit.config import Fraction, Positive, Section, Study, read_model
from hybridlungvit.data.manifest import unit_of
from hybridlungvit.io import StudyError
from hybridlungvit.paper.booktabs import Table
from hybridlungvit.paper.contents import table
from hybridlungvit.paper.format import (
    code,
    format_interval,
    format_range,
    heading,
    number,
    source_names,
    tex,
)
from hybridlungvit.paper.manuscript import bibliography_keys
from hybridlungvit.paper.results import StudyResults
from hybridlungvit.paths import Layout

Text = Annotated[str, Field(min_length=1)]
COLUMNS = ["Method", "Source", "Data", "Test images", "Split by", "AUC", "Accuracy"]
WIDTH = "15.5cm"  # of the notes below the table


class Published(Section):
    """One method of an article; only values that were read in the article itself."""

    method: Text
    cite: Text
    """Its key in ``references.bib``."""
    data: Text
    """The form of the images."""
    test_images: Positive
    split_by: Literal["patients", "images", "not stated"]
    auc: Fraction | None = None
    accuracy: Fraction | None = None
    read: Text
    """In what part of the article the values stand."""
    note: Text | None = None

    @model_validator(mode="after")
    def _gaps_are_explained(self) -> Self:
        if (self.auc is None or self.accuracy is None) and self.note is None:
            raise ValueError(f"{self.method}: a value is left out without a note that says why")
        return self


class Literature(Section):
    rows: Annotated[list[Published], Field(min_length=1)]


class Look(Section):
    """Models of this project that were scored on the test images."""

    models: Text
    settings: Text
    aucs: Annotated[list[Fraction], Field(min_length=1)]
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{7,40}$")] | None = None
    """That holds the records; null where none were kept."""
    after: list[Text] = []
    """The studies that had been scored by then, or just were: for these it is no earlier look."""


class EarlierLooks(Section):
    rows: list[Look]


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
    rows = read_literature(results.layout)
    notes = dict.fromkeys(row.note for row in rows if row.note is not None)
    marks = {note: rf"\textsuperscript{{{LETTERS[i]}}}" for i, note in enumerate(notes)}
    cells = [
        [
            tex(heading(row.method)) + marks.get(row.note, ""),
            rf"\citet{{{row.cite}}}",
            tex(row.data),
            f"{row.test_images:,}",
            "n.s." if row.split_by == "not stated" else row.split_by,
            number(row.auc),
            number(row.accuracy),
        ]
        for row in rows
    ]
    cell = rf"\multicolumn{{{len(COLUMNS)}}}{{@{{}}p{{{WIDTH}}}@{{}}}}"
    lines = (f"{cell}{{{mark}~{tex(note)}}}" for note, mark in marks.items())
    footer = [" & ".join(_reference_row(results)), *lines]
    footer[:2] = [f"\\midrule\n{line}" for line in footer[:2]]
    return pd.DataFrame(cells, columns=COLUMNS), "llllllc", tuple(footer)


def _reference_row(results: StudyResults) -> list[str]:
    study, record = results.study, results.reference
    by_patient = unit_of(results.manifest) == "patient" and study.data.validation_split == "patient"
    size = study.recipe(study.reference).data.image_size
    return [
        tex(study.variants[study.reference].label),
        "this study",
        f"{source_names(study.data)[1]}, {size} px",
        f"{record['images']:,}",
        "patients" if by_patient else "images",
        format_interval(record["headline"]["auc"]),
        number(record["headline"]["accuracy"]["estimate"]),
    ]


def read_looks(study: Study, layout: Layout) -> list[Look]:
    """The rows of ``paper/earlier_looks.yaml`` that went before the study."""
    looks = read_model(layout.paper / "earlier_looks.yaml", EarlierLooks).rows
    return [look for look in looks if study.study not in look.after]


@table
def earlier_looks(results: StudyResults) -> Table:
    """What this project had scored on the published test images before this study."""
    rows = [
        {
            "Models": tex(heading(look.models)),
            "Settings": tex(look.settings),
            "Test AUC": format_range(look.aucs),
            "Records": "none kept" if look.commit is None else code(look.commit),
        }
        for look in read_looks(results.study, results.layout)
    ]
    return pd.DataFrame(rows), "lllr"
