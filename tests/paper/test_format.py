"""Numbers and words as text."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hybridlungvit.paper.format import (
    enumerated,
    format_interval,
    format_range,
    metric_name,
    number,
    p_value,
    scientific,
    signed,
    tex,
    tex_interval,
    tex_signed,
    whole_number,
    whole_signed,
)


@given(st.text(st.sampled_from("ab \\{}$&#_%~^"), max_size=12))
@example("50% of seg_a & more")
def test_tex_can_be_read_back(text):
    names = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^"}
    pattern = r"\\(textbackslash|textasciitilde|textasciicircum)\{\}|\\([{}$&#_%])|([a-z0-9 ])"
    written = tex(text).replace(r"\,\%", r" \%")
    read, end = [], 0
    for sign in re.finditer(pattern, written):
        assert sign.start() == end
        end = sign.end()
        read.append(names.get(sign[1]) or sign[2] or sign[3])
    assert end == len(written)
    assert "".join(read) == text


NONE = dict.fromkeys(("estimate", "low", "high"))
INTERVAL = {"estimate": 0.9123, "low": -0.85, "high": 0.99999}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (tex("plain é (1)"), "plain é (1)"),
        (tex(5), "5"),
        (tex("[CLS] token"), "{[}CLS] token"),  # a row that began with it would be no row
        (tex("cut 20 % right"), r"cut 20\,\% right"),
        (number(0.9996), "1.000"),
        (number(12.34, 1), "12.3"),
        (number(None), "--"),
        (signed(0.0123), "+0.012"),
        (signed(-0.5, 2), "-0.50"),
        (whole_number(-0.004, 2), "0.00"),
        (whole_number(-0.5, 2), "$-0.50$"),
        (whole_signed(-0.004, 2), "$+0.00$"),
        (p_value(0.00099), "$<0.001$"),
        (p_value(0.0005, "below 0.001"), "below 0.001"),
        (p_value(0.001), "0.001"),
        (p_value(1), "1.000"),
        (p_value(0.0499), "0.04990"),
        (p_value(0.0502), "0.05020"),
        (format_range([0.2, 0.1004, 0.1]), "0.100 to 0.200"),
        (format_range([0.1004, 0.1]), "0.100"),
        (format_range([1200, 3], 0, "–"), "3–1,200"),
        (enumerated(["10"]), "10"),
        (enumerated(["10", "25", "50"]), "10, 25 and 50"),
        (metric_name("balanced_accuracy"), "Balanced accuracy"),
        (metric_name("npv"), "NPV"),
        (format_interval(INTERVAL), "0.912 (-0.850 to 1.000)"),
        (format_interval(INTERVAL, 1, signed), "+0.9 (-0.8 to +1.0)"),
        (format_interval(NONE), "--"),
        (format_interval(NONE | {"estimate": 1.0}), "1.000 (--)"),
        (tex_interval(INTERVAL, 0.95), r"0.912 (95\,\%~CI \ensuremath{-0.850} to~1.000)"),
        (tex_interval(INTERVAL, 0.9, 1, tex_signed),
         r"\ensuremath{+0.9} (90\,\%~CI \ensuremath{-0.8} to~\ensuremath{+1.0})"),
        (tex_interval(NONE, 0.95), "undefined"),
        (tex_interval(NONE | {"estimate": -1.0}, 0.95), r"\ensuremath{-1.000} (no interval)"),
    ],
)  # fmt: skip
def test_numbers_names_and_intervals_in_print(text, expected):
    assert text == expected


@given(st.floats(1e-12, 1e12))
@example(5e-05)
@example(1e-7)
@example(1e5)
@example(0.01)
@example(1000.0)
def test_scientific_can_be_read_back(value):
    text = scientific(value)
    assert ("ensuremath" in text) == (not 0.01 <= value < 1000)
    if "ensuremath" in text:
        parts = re.fullmatch(r"\\ensuremath\{(?:([\d.]+) \\times )?10\^\{(-?\d+)\}\}", text)
        assert parts[1] != "1"
        read = float(parts[1] or 1) * 10.0 ** int(parts[2])
    else:
        read = float(text)
    assert read == pytest.approx(value, rel=1e-5)
    assert scientific(0) == "0"
    assert scientific(-2e-5) == r"\ensuremath{-2 \times 10^{-5}}"
