"""Tables in print: booktabs rules, and numbers whose decimals, signs and brackets are aligned.

The digits of the paper's type have one width. So the numbers of a column stand below each other
once its cells have as many signs at every place; what a cell lacks is a ``\\phantom``, which takes
room and prints nothing. (siunitx' S columns align one number a cell, and no bracket or "to" of an
interval; pandas' Styler, which writes the tabular, aligns nothing.)
"""

import re

import pandas as pd

# A sign with its number, in or out of math mode: 1,234, 0.95, -0.1, $+0.015$, $<$0.001.
NUMBER = re.compile(
    r"(?P<math>\$)?(?P<sign>\$[-+<>]\$|[-+<>])?(?P<whole>\d[\d,]*)(?P<part>\.\d+)?(?(math)\$)"
)
# What may stand around the numbers of a cell; any other cell is words and stays as it is.
GLUE = re.compile(r"(?:[ ()/]|to|of|--|\\,|\\%|\\rlap\{\$\^\*\$\})*")
MARK = re.compile(r"\\rlap\{\$\^\*\$\}")  # of a footnote, without width
Table = tuple[pd.DataFrame, str] | tuple[pd.DataFrame, str, tuple[str, ...]]
"""Cells as TeX, the column format, and lines below the last row."""
Cell = list[tuple[str, str, str, str]]
"""A cell taken apart: for each number the text before it, its sign, its whole part with commas and
its decimals with their point; the text behind the last number stands before empty ones."""


def tabular(table: pd.DataFrame, columns: str, footer: tuple[str, ...] = ()) -> str:
    """The TeX of a data frame with columns of the given format and lines below the last row.

    Numbers are aligned in columns of the formats ``c`` and ``r``. A frame without rows becomes a
    line that says so: a study may have nothing to compare.
    """
    if table.empty:
        table, columns = pd.DataFrame({"": ["nothing to show in this study"]}), "l"
    aligned = table.astype(str)
    for i, kind in enumerate(re.sub(r"@\{(?:[^{}]|\{[^{}]*\})*\}", "", columns)):
        if kind in "cr":
            cells = pad(aligned.iloc[:, i].tolist())
            if kind == "r":  # the left edge needs no room
                cells = [re.sub(r"^\\phantom\{[^{}]*\}", "", cell) for cell in cells]
            aligned.isetitem(i, cells)
    body = aligned.style.hide(axis="index").to_latex(
        hrules=True, column_format=f"@{{}}{columns}@{{}}"
    )
    for line in footer:
        body = body.replace("\\bottomrule", f"{line} \\\\\n\\bottomrule")
    return body


def parse(text: str) -> Cell | None:
    """Take a cell apart; None where it holds no number, or more than numbers."""
    cell, end = [], 0
    for match in NUMBER.finditer(text):
        sign = (match["sign"] or "").strip("$")
        cell.append((text[end : match.start()], sign, match["whole"], match["part"] or ""))
        end = match.end()
    cell.append((text[end:], "", "", ""))
    return cell if len(cell) > 1 and all(GLUE.fullmatch(glue) for glue, *_ in cell) else None


def pad(cells: list[str]) -> list[str]:
    """Give the cells of a column equal widths, number by number; words and blanks stay."""
    parsed = [parse(cell) for cell in cells]
    numeric = [cell for cell in parsed if cell is not None]
    if not numeric:
        return cells
    model = []
    for i, (glue, *_) in enumerate(max(numeric, key=len)):
        column = [cell[i][1:] for cell in numeric if i < len(cell)]
        widest = (max(parts, key=len) for parts in zip(*column, strict=True))
        model.append((MARK.sub("", glue), *widest))
    return [
        text if cell is None else _padded(cell, model)
        for text, cell in zip(cells, parsed, strict=True)
    ]


def _padded(cell: Cell, model: Cell) -> str:
    text = ""
    for i, (glue, sign, whole, part) in enumerate(cell[:-1]):
        wide_glue, wide_sign, wide_whole, wide_part = model[i]
        if glue != wide_glue:
            return text + _instead(_text(cell[i:]), _text(model[i:]))
        left = "" if sign else _math(wide_sign)
        left += wide_whole[: len(wide_whole) - len(whole)]
        # The room of missing digits comes before a bracket, which stays with its number.
        before = glue.removesuffix("(")
        text += before + _phantom(left) + glue[len(before) :] + _math(sign) + whole + part
        text += _phantom(wide_part[len(part) :])
    return text + _instead(_text(cell[-1:]), _text(model[len(cell) - 1 :]))


def _text(cell: Cell) -> str:
    return "".join(glue + _math(sign) + whole + part for glue, sign, whole, part in cell)


def _instead(mine: str, room: str) -> str:
    """A text in the room of another one."""
    if mine == room or not room.strip():
        return mine
    return (rf"\rlap{{{mine}}}" if mine.strip() else "") + _phantom(room)


def _math(sign: str) -> str:
    return f"${sign}$" if sign else ""


def _phantom(text: str) -> str:
    return rf"\phantom{{{re.sub(r'[0-9]', '0', text)}}}" if text else ""
