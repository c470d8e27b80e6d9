"""One look for every figure: print sizes, a serif that matches the text, colour-blind-safe hues."""

from pathlib import Path

import matplotlib as mpl

mpl.use("pdf")  # no display needed, and vector output by default

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from hybridlungvit.files import replacing

WIDTH = 6.3  # inches: the text width of the paper, 16 cm
# Okabe & Ito's hues, told apart with any colour vision; dark enough for thin lines in print.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D"]
CLASS_COLOURS = {0: "#0072B2", 1: "#D55E00"}


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
            "axes.labelsize": 9,
            "axes.titlesize": 9,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "legend.fontsize": 8,
            "axes.linewidth": 0.6,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "lines.linewidth": 1.2,
            "pdf.fonttype": 42,  # embed TrueType: editable, and accepted by publishers
            "figure.constrained_layout.use": True,
        },
    )


def save_figure(figure: Figure, path: Path) -> None:
    """Save as PDF without a date, so that equal results give equal bytes; then close."""
    with replacing(path) as temporary:
        figure.savefig(temporary, metadata={"CreationDate": None, "Producer": None}, dpi=300)
    plt.close(figure)
