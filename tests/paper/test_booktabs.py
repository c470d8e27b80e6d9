"""Aligned numbers in tables."""

import re

import pandas as pd
import pytest

from hybridlungvit.paper.booktabs import pad, tabular


def plain(cell):
    """A cell as it prints: phantoms as blanks, text without width left out."""
    cell = re.sub(r"\\rlap\{([^{}]*)\}", "", cell)
    cell = re.sub(r"\\phantom\{([^{}]*)\}", lambda m: " " * len(m[1].replace("$", "")), cell)
    return cell.replace("$", "").replace("\\,", "").replace("\\%", "%")


def places(cells, sign):
    """Where a character stands in each printed cell that has it."""
    return {plain(cell).index(sign) for cell in cells if sign in plain(cell)}


@pytest.mark.parametrize(
    "cells",
    [
        ["1.7 (1.6 to 1.9)", "15.7 (13.4 to 19.3)"],
        ["4.132 ($-$3.141 to 11.406)", "0.856 (0.465 to 1.248)"],
        ["4.132 (-3.141 to 11.406)", "0.856 (0.465 to 1.248)"],
        ["$+0.015$ ($-0.076$ to $+0.106$)", "$-0.010$ ($-0.100$ to $+1.100$)"],
        ["$<0.001$", "0.064", "1.000"],
        ["23 / 65", "5 / 140"],
        ["60 (44)", "1,181 (119)", "7 (3)"],
        [r"5\,\%", r"50\,\%"],
        ["0.5", "12.25", "3"],
    ],
)
def test_all_cells_get_one_width_with_points_and_brackets_below_each_other(cells):
    padded = pad(cells)
    printed = [plain(cell) for cell in padded]
    assert len({len(cell) for cell in printed}) == 1
    for sign in ".)/%<":
        assert len(places(padded, sign)) <= 1
    # Nothing is lost, added or moved but blanks and the form of signs.
    for before, after in zip(cells, printed, strict=True):
        assert after.replace(" ", "") == plain(before).replace(" ", "")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        # A lone estimate and undefined bounds take the room of a whole interval.
        (["0.95 (0.91 to 0.98)", "10.95"],
         [r"\phantom{0}0.95 (0.91 to 0.98)", r"10.95\phantom{ (0.00 to 0.00)}"]),
        (["0.95 (0.91 to 0.98)", "0.75 (--)"],
         ["0.95 (0.91 to 0.98)", r"0.75\rlap{ (--)}\phantom{ (0.00 to 0.00)}"]),
        # Marks without width move no number, and equal forms need no padding.
        ([r"0.010\rlap{$^*$}", "0.020"], [r"0.010\rlap{$^*$}", "0.020"]),
        (["0.912 (0.880 to 0.941)", "0.900 (0.850 to 0.940)"],
         ["0.912 (0.880 to 0.941)", "0.900 (0.850 to 0.940)"]),
        # Words stay as they are.
        (["3.11.7, Linux", "", "--", "reference", r"\texttt{ee55834930}", "2-fold", "v1.2", "7"],
         ["3.11.7, Linux", "", "--", "reference", r"\texttt{ee55834930}", "2-fold", "v1.2", "7"]),
    ],
)  # fmt: skip
def test_what_has_no_number_of_its_own_at_a_place(cells, expected):
    assert pad(cells) == expected


def test_a_table_is_padded_in_columns_of_numbers_only():
    table = pd.DataFrame({"Name": ["1", "10"], "Count": ["1", "10"], "p": ["1.0", "10.0"]})
    assert tabular(table, "lrc", ("a note",)).splitlines() == [
        r"\begin{tabular}{@{}lrc@{}}",
        r"\toprule",
        r"Name & Count & p \\",
        r"\midrule",
        r"1 & 1 & \phantom{0}1.0 \\",
        r"10 & 10 & 10.0 \\",
        r"a note \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_table_without_rows_says_so():
    text = tabular(pd.DataFrame([]), "lcrr")
    assert "nothing to show in this study" in text
    assert text.startswith("\\begin{tabular}{@{}l@{}}")
