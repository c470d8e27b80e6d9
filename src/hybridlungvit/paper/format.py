"""Numbers and words as text: for plain text, for tables and for sentences of the paper."""

from collections.abc import Callable, Iterable
from typing import Any

from hybridlungvit.config import Data

Show = Callable[[float, int], str]
"""Prints a number with so many digits."""
SPLIT_NAMES = {"train": "Training", "val": "Validation", "test": "Test"}
POINT_NAMES = {"fixed": "Fixed", "youden": "Youden", "sensitive": "Sensitive"}
SUBGROUP_NAMES = {
    "subtype": "Kind", "series": "Normal series", "pixels": "Megapixels",
    "bytes_per_pixel": "Bytes/pixel", "mask_confidence": "Mask conf.",
}  # fmt: skip
SHORTCUT_NAMES = {
    "size": "Width, height", "aspect": "Aspect ratio", "bytes": "File size",
    "file": "All file properties", "masks": "Lung mask geometry",
    "confidence": "Lung mask confidence",
}  # fmt: skip
SIMILARITY_NAMES = {"rank": "Spearman correlation", "ssim": "SSIM"}
SOURCE_NAMES = {
    "phantom": ("synthetic phantoms", "synthetic phantoms"),
    "folder": ("the Kermany pediatric chest X-rays", "Kermany radiographs"),
    "mendeley": ("the Kermany pediatric chest X-rays", "Kermany radiographs"),
    "pneumoniamnist": (
        "PneumoniaMNIST, cropped from the Kermany pediatric chest X-rays", "PneumoniaMNIST",
    ),
}  # fmt: skip


def source_names(data: Data) -> tuple[str, str]:
    """What the images are, for a sentence and for the cell of a table."""
    if data.own_images:
        return (
            f"chest radiographs of two classes, {' and '.join(data.class_words)}",
            "own radiographs",
        )
    return SOURCE_NAMES[data.source]


# Of the metrics whose name in print is not their key with a capital letter.
METRIC_NAMES = {
    "auc": "AUC", "brier": "Brier score", "ppv": "PPV", "npv": "NPV", "f1": "$F_1$", "mcc": "MCC",
    "net_benefit": "Reference", "net_benefit_all": "Calling all",
    "net_benefit_over_all": "Minus calling all",
    "ece": "ECE", "slope": "Calibration slope", "intercept": "Calibration intercept",
}  # fmt: skip


def metric_name(metric: str) -> str:
    """A metric's name in a table."""
    return METRIC_NAMES.get(metric, heading(metric.replace("_", " ")))


def heading(label: str) -> str:
    """A name as it stands in a table, on an axis or in a legend: with a capital letter."""
    return label[:1].upper() + label[1:]


def short_verdict(verdict: str) -> str:
    """A verdict in one word: "higher" for "higher than", "undecided" for what is neither."""
    word = verdict.split()[0]
    return "undecided" if word == "neither" else word


def number(value: float | None, digits: int = 3) -> str:
    """A number for print; a dash where there is none (no deviation from a single seed)."""
    return "--" if value is None else f"{value:.{digits}f}"


def signed(value: float, digits: int = 3) -> str:
    """A difference for print, always with its sign: -0.000 is below zero, as a bound may be."""
    return f"{value:+.{digits}f}"


def math_signed(value: float, digits: int = 3) -> str:
    """A difference for a table, in math mode for a true minus."""
    return f"${signed(value, digits)}$"


def whole_number(value: float, digits: int = 3) -> str:
    """A number with a true minus, but none before a zero."""
    text = number(round(value, digits) + 0.0, digits)
    return f"${text}$" if text.startswith("-") else text


def whole_signed(value: float, digits: int = 3) -> str:
    """A difference with its sign, which is a plus before a zero."""
    return math_signed(round(value, digits) + 0.0, digits)


def tex_number(value: float, digits: int = 3) -> str:
    """A number for a sentence, with a true minus instead of a hyphen."""
    text = number(value, digits)
    return rf"\ensuremath{{{text}}}" if text.startswith("-") else text


def tex_signed(value: float, digits: int = 3) -> str:
    """A difference for a sentence, always with its sign."""
    return rf"\ensuremath{{{signed(value, digits)}}}"


def format_interval(interval: dict[str, Any], digits: int = 3, show: Show = number) -> str:
    """Estimate (low to high) in plain text or a table; dashes for what is undefined.

    ``show`` prints each of the three numbers, such as ``signed`` those of a difference.
    """
    if interval["estimate"] is None:
        return "--"
    bounds = "--"
    if interval["low"] is not None:
        bounds = f"{show(interval['low'], digits)} to {show(interval['high'], digits)}"
    return f"{show(interval['estimate'], digits)} ({bounds})"


def tex_interval(
    interval: dict[str, Any], level: float, digits: int = 3, show: Show = tex_number
) -> str:
    """An estimate with its interval for a sentence, as ``\\result`` prints those of variants.

    It says so where there is none. ``show`` prints each number, as in ``format_interval``.
    """
    if interval["estimate"] is None:
        return "undefined"
    value = show(interval["estimate"], digits)
    if interval["low"] is None:
        return f"{value} (no interval)"
    low, high = show(interval["low"], digits), show(interval["high"], digits)
    return rf"{value} ({100 * level:g}\,\%~CI {low} to~{high})"


def format_range(values: Iterable[float], digits: int = 3, between: str = " to ") -> str:
    """The lowest and the highest value, or the one where they print alike."""
    ordered = sorted(values)
    low, high = (f"{value:,.{digits}f}" for value in (ordered[0], ordered[-1]))
    return low if low == high else f"{low}{between}{high}"


def p_value(value: float, below: str = "$<0.001$") -> str:
    """A p-value with three digits, or the words for those below the last of them.

    More digits where three would not tell on which side of 0.05 it lies.
    """
    digits = 5 if f"{value:.3f}" == "0.050" else 3
    return below if value < 0.001 else f"{value:.{digits}f}"


def percent(share: float) -> str:
    """A share in per cent for a sentence."""
    return rf"{100 * share:.1f}\,\%"


def enumerated(words: list[str]) -> str:
    """Words with commas and an "and" before the last."""
    return ", ".join(words[:-1]) + " and " * (len(words) > 1) + words[-1]


def scientific(value: float) -> str:
    """A number as TeX math, with a power of ten where that reads better: 5e-05 → 5·10⁻⁵."""
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:g}"
    mantissa, exponent = f"{value:.6e}".split("e")
    factor = "" if float(mantissa) == 1 else rf"{float(mantissa):g} \times "
    return rf"\ensuremath{{{factor}10^{{{int(exponent)}}}}}"


def setting(value: bool | float | str | None) -> str:
    """A value of the config in print."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return scientific(value) if isinstance(value, float) else str(value)


def tex(text: object) -> str:
    """Plain text made safe for TeX; no line breaks between a number and its percent sign."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {sign: "\\" + sign for sign in "&%$#_{}"}
    special["["] = "{[}"  # at the start of a row it would be the space above
    return "".join(special.get(sign, sign) for sign in str(text)).replace(r" \%", r"\,\%")


def code(text: object) -> str:
    """Plain text as TeX in the type of code."""
    return rf"\texttt{{{tex(text)}}}"
