"""One look for every figure: print sizes, a serif that matches the text, colour-blind-safe hues."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("pdf")  # no display needed, and vector output by default

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlungvit.io import replacing

FULL_WIDTH = 6.3  # inches: the text width of the paper, 16 cm; two columns of a journal
SMALL = 7.5  # points: tick labels, legends and titles of small panels; nothing is smaller
# Okabe & Ito's hues, told apart with any colour vision; dark enough for thin lines in print.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D"]
# One pattern for each hue, in points on and off: lines stay apart in grey print.
DASHES: list[Any] = [
    "-",
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (6, 1.5, 1.2, 1.5)),
    (0, (9, 2)),
    (0, (5, 1.2, 1.2, 1.2, 1.2, 1.2)),
    (0, (2.5, 1.5)),
]


def use_style() -> None:
    """Set the theme; call before drawing."""
    sns.set_theme(
        context="paper",
        style="ticks",
        palette=PALETTE,
        rc={
            "font.family": "serif",
            "font.serif": ["STIXGeneral"],
            "mathtext.fontset": "stix",
            "font.size": 9,
            "axes.labelsize": 8.5,
            "axes.titlesize": 9,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "legend.fontsize": 8,
            "axes.linewidth": 0.6,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.major.size": 3,
            "ytick.major.size": 3,
            "lines.linewidth": 1.2,
            "legend.frameon": False,
            "legend.handlelength": 2.4,
            "legend.labelspacing": 0.35,
            "legend.columnspacing": 1.4,
            "pdf.fonttype": 42,  # embed TrueType: editable, and accepted by publishers
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.h_pad": 0.02,
            "figure.constrained_layout.w_pad": 0.02,
        },
    )


def line_of(index: int) -> dict[str, Any]:
    """Colour and dashes of the study's variant at a position, the same in every figure."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "ls": DASHES[(index + index // len(PALETTE)) % len(DASHES)],
    }


def draw_interval(
    axes: Axes, interval: dict[str, Any], y: float, colour: str, marker: str = "D"
) -> None:
    """An estimate with its interval as a horizontal bar."""
    axes.plot([interval["low"], interval["high"]], [y, y], color=colour, lw=1.2)
    axes.plot(interval["estimate"], y, marker, ms=4, color=colour)


def save_figure(figure: Figure, path: Path) -> None:
    """Save as PDF without a date, so that equal results give equal bytes; then close.

    White margins are cut off, so that a figure stands as close to its caption as its type does.
    """
    with replacing(path) as temporary:
        figure.savefig(
            temporary,
            metadata={"CreationDate": None, "Producer": None},
            dpi=300,
            bbox_inches="tight",
            pad_inches=0.02,
        )
    plt.close(figure)
