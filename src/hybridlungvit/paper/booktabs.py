"""Tables in print: booktabs rules, and numbers whose decimals, signs and brackets are aligned.

The digits of the paper's type have one width. So the numbers of a column stand below each other
once its cells have as many signs at every place; what a cell lacks is a ``\\phantom``, which takes
room and prints nothing. (siunitx' S columns align one number a cell, and no bracket or "to" of an
interval; pandas' Styler, which writes the tabular, aligns nothing.)
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hybridlungvit.io import write_text
from hybridlungvit.paper.format import code, heading, tex
from hybridlungvit.paper.results import StudyResults

Table = tuple[pd.DataFrame, str] | tuple[pd.DataFrame, str, tuple[str, ...]]
"""Cells as TeX, the column format, and lines below the last row."""

# A sign with its number, in or out of math mode: 1,234, 0.95, -0.1, $+0.015$, $<$0.001.
NUMBER = re.compile(
    r"(?P<math>\$)?(?P<sign>\$[-+<>]\$|[-+<>])?(?P<whole>\d[\d,]*)(?P<part>\.\d+)?(?(math)\$)"
)
# What may stand around the numbers of a cell; any other cell is words and stays as it is.
GLUE = re.compile(r"(?:[ ()/]|to|of|--|\\,|\\%|\\rlap\{\$\^\*\$\})*")
MARK = re.compile(r"\\rlap\{\$\^\*\$\}")  # of a footnote, without width


def write_table(
    path: Path, table: pd.DataFrame, columns: str, footer: tuple[str, ...] = ()
) -> None:
    """Write a data frame as a booktabs tabular with columns of the given format."""
    write_text(path, tabular(table, columns, footer))


def tabular(table: pd.DataFrame, columns: str, footer: tuple[str, ...] = ()) -> str:
    """The TeX of a data frame; numbers are aligned in columns of the formats ``c`` and ``r``.

    A frame without rows becomes a line that says so: a study may have nothing to compare.
    """
    if table.empty:
        table, columns = pd.DataFrame({"": ["nothing to show in this study"]}), "l"
    body = (
        align(table, columns)
        .style.hide(axis="index")
        .to_latex(hrules=True, column_format=f"@{{}}{columns}@{{}}")
    )
    for line in footer:
        body = body.replace("\\bottomrule", f"{line} \\\\\n\\bottomrule")
    return body


def label_of(results: StudyResults, variant: str) -> str:
    """A variant's name at the head of a row."""
    return tex(heading(results.study.variants[variant].label))


def spaced(rows: list[dict[str, str]]) -> str:
    """What parts a block of rows from those above."""
    return r"\addlinespace " if rows else ""


def omitted_rows(results: StudyResults, columns: int) -> tuple[str, ...]:
    """A line at the foot of a table for each variant that the study leaves out."""
    return tuple(
        rf"\multicolumn{{{columns}}}{{l}}{{{code(name)} left out: {tex(why)}}}"
        for name, why in results.study.omitted.items()
    )


def align(table: pd.DataFrame, columns: str) -> pd.DataFrame:
    """Pad the cells of the columns whose format is ``c`` or ``r``."""
    formats = re.sub(r"@\{(?:[^{}]|\{[^{}]*\})*\}", "", columns)
    aligned = table.astype(str)
    for i, kind in enumerate(formats):
        if kind in "cr":
            cells = pad(aligned.iloc[:, i].tolist())
            if kind == "r":  # the left edge needs no room
                cells = [re.sub(r"^\\phantom\{[^{}]*\}", "", cell) for cell in cells]
            aligned.isetitem(i, cells)
    return aligned


@dataclass(frozen=True)
class Cell:
    """A cell taken apart: ``glue[i]`` stands before ``numbers[i]``, the last behind them all."""

    glue: list[str]
    numbers: list[tuple[str, str, str]]
    """Sign, whole part with its commas, decimals with their point."""

    def rest(self, i: int) -> str:
        """The text from ``glue[i]`` on."""
        text = self.glue[i]
        for (sign, whole, part), glue in zip(self.numbers[i:], self.glue[i + 1 :], strict=True):
            text += _math(sign) + whole + part + glue
        return text


def parse(text: str) -> Cell | None:
    """Take a cell apart; None where it holds no number, or more than numbers."""
    glue, numbers, end = [], [], 0
    for match in NUMBER.finditer(text):
        glue.append(text[end : match.start()])
        numbers.append(((match["sign"] or "").strip("$"), match["whole"], match["part"] or ""))
        end = match.end()
    glue.append(text[end:])
    usable = numbers and all(GLUE.fullmatch(part) for part in glue)
    return Cell(glue, numbers) if usable else None


def pad(cells: list[str]) -> list[str]:
    """Give the cells of a column equal widths, number by number; words and blanks stay."""
    parsed = [parse(cell) for cell in cells]
    numeric = [cell for cell in parsed if cell is not None]
    if not numeric:
        return cells
    fullest = max(numeric, key=lambda cell: len(cell.numbers))
    widest = []
    for i in range(len(fullest.numbers)):
        column = [cell.numbers[i] for cell in numeric if i < len(cell.numbers)]
        widest.append(tuple(max(parts, key=len) for parts in zip(*column, strict=True)))
    model = Cell([MARK.sub("", glue) for glue in fullest.glue], widest)
    return [
        text if cell is None else _padded(cell, model)
        for text, cell in zip(cells, parsed, strict=True)
    ]


def _padded(cell: Cell, model: Cell) -> str:
    text = ""
    for i, (sign, whole, part) in enumerate(cell.numbers):
        if cell.glue[i] != model.glue[i]:
            return text + _instead(cell.rest(i), model.rest(i))
        wide_sign, wide_whole, wide_part = model.numbers[i]
        left = "" if sign else _math(wide_sign)
        left += wide_whole[: len(wide_whole) - len(whole)]
        # The room of missing digits comes before a bracket, which stays with its number.
        before = cell.glue[i].removesuffix("(")
        bracket = cell.glue[i][len(before) :]
        text += before + _phantom(left) + bracket + _math(sign) + whole + part
        text += _phantom(wide_part[len(part) :])
    i = len(cell.numbers)
    return text + _instead(cell.rest(i), model.rest(i))


def _instead(mine: str, room: str) -> str:
    """A text in the room of another one."""
    if mine == room or not room.strip():
        return mine
    return (rf"\rlap{{{mine}}}" if mine.strip() else "") + _phantom(room)


def _math(sign: str) -> str:
    return f"${sign}$" if sign else ""


def _phantom(text: str) -> str:
    return rf"\phantom{{{re.sub(r'[0-9]', '0', text)}}}" if text else ""
