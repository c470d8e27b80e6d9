"""Which rule for intervals over patients and training seeds covers as often as it says?

    python benchmarks/coverage.py [--datasets 2000] [--output FILE]

Simulated test sets have the clusters of the committed test manifest: its patients are drawn with
replacement within their class, each with as many images as they have. Latent scores are normal,
those of normal images twice as spread out as those of pneumonia (1.7 and 0.8 on the logit scale of
the predictions of an earlier study, commit 652d4fc). A part is common to all models, a part belongs
to a variant and a part to a seed; of each, a share is common to the images of a patient. The shares
are those at which, for an AUC of 0.97, the AUCs of two seeds are as correlated, and as many calls
of two seeds differ, as in those predictions. Seeds also differ in the separation of the classes.

Three models are trained on K seeds each: a and b are equally good, c is worse and a third as
variable. Three questions: how often the interval of the mean AUC of a covers its expectation, how
often that of a minus c does, and how often a and b are told apart at 5 %; the last also where the
seeds vary no more than resampled patients explain, so that the seeds' component is estimated as
zero. The variances due to patients are DeLong's, for clusters (Obuchowski 1997), which a bootstrap
approximates. The run takes about 12 minutes of one core.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from report import Measure, arguments
from report import show as show_measures
from rich.console import Console
from rich.table import Table
from scipy.special import chdtrc, logit, ndtr, ndtri, stdtr

from hybridlungvit.runtime import track

Array = NDArray[np.float64]
Moments = dict[str, Array]
MANIFEST = Path(__file__).parents[1] / "results" / "kermany-cpu" / "manifest.csv"
WORSE = {0.90: 0.88, 0.97: 0.955, 0.99: 0.98}
"""AUC of a and b, and of c."""
SEED_SDS = (0.0, 0.002, 0.004, 0.008, 0.015)
"""Of the expected AUC of a and b, between seeds."""
SEEDS = (3, 5, 10, 20)
SPREAD = np.array([2.0, 1.0])  # of normal images, of pneumonia
PATIENT, VARIANT, SEED = 0.25, 0.03, 0.13  # shares of the variance within a class
ALPHA = 0.05
LEAST_FREEDOM = 4
"""Of the patients' variance: with fewer, a single wrong image would leave everything open."""
OTHERS = 4  # further variants, a third as variable, over which a rule may pool the seeds' variance


@cache
def cluster_sizes() -> tuple[Array, Array]:
    """Images of each patient of the committed test set: normal, pneumonia."""
    table = pd.read_csv(MANIFEST)
    table = table[table.split == "test"]
    return tuple(table[table.label == k].groupby("patient").size().to_numpy() for k in (0, 1))


def separation(auc: float, sd: float) -> tuple[float, float]:
    """Mean and SD of a normal separation whose AUC has this mean and this SD."""
    node, weight = np.polynomial.hermite_e.hermegauss(200)
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        aucs = ndtr(ndtri(auc) * np.hypot(1, middle) + middle * node)
        wide = weight @ (aucs - auc) ** 2 > sd**2 * weight.sum()
        low, high = (low, middle) if wide else (middle, high)
    scale = np.hypot(*SPREAD)
    return float(ndtri(auc) * np.hypot(1, low) * scale), float(low * scale)


def simulate(
    rng: np.random.Generator, separations: Array
) -> tuple[NDArray[np.int64], Array, NDArray[np.int64]]:
    """Labels (N,), scores (M, K, N) and patients (N,) for ``separations`` (M, K)."""
    sizes = [rng.choice(own, len(own)) for own in cluster_sizes()]
    images = np.concatenate(sizes)
    labels = np.repeat(np.repeat([0, 1], list(map(len, sizes))), images)
    patients = np.repeat(np.arange(len(images)), images)

    def noise(variance: float, *shape: int) -> Array:
        by_patient = rng.standard_normal((*shape, len(images)), np.float32)[..., patients]
        by_image = rng.standard_normal((*shape, len(labels)), np.float32)
        return np.sqrt(variance * PATIENT) * by_patient + (
            np.sqrt(variance * (1 - PATIENT)) * by_image
        )

    models, seeds = separations.shape
    common = noise(1 - VARIANT - SEED, 1, 1)
    latent = common + noise(VARIANT, models, 1) + noise(SEED, models, seeds)
    return labels, separations[..., None] * labels + latent * SPREAD[labels], patients


def one_model(rng: np.random.Generator, auc: float) -> tuple[NDArray, Array, NDArray]:
    """Labels, scores and patients, (N,) each, of one model without seeds."""
    labels, scores, patients = simulate(rng, np.array([[separation(auc, 0)[0]]]))
    return labels, scores[0, 0], patients


def influence(labels: NDArray, scores: Array, patients: NDArray) -> tuple[Array, Array]:
    """AUCs (M, K), and what each patient adds to their errors: (M, K, P).

    The sum over patients of products of two models' influences is the covariance of their AUCs
    (Obuchowski 1997). Patients come in the order of their images and have one class each, the
    normal ones first; no scores tie.
    """
    rows = scores.reshape(-1, len(labels))
    order = np.argsort(rows, axis=1)
    positives = int(labels.sum())
    negatives = len(labels) - positives
    below = np.cumsum(labels[order], axis=1)  # positives that score no higher
    rank = np.arange(1, len(labels) + 1)
    won = np.where(labels[order], (rank - below) / negatives, (positives - below) / positives)
    placements = np.empty_like(won)
    np.put_along_axis(placements, order, won, axis=1)
    aucs = placements[:, labels == 1].mean(axis=1)
    starts = np.flatnonzero(np.diff(patients, prepend=-1))
    sums = np.add.reduceat(placements - aucs[:, None], starts, axis=1)
    count = np.bincount(labels[starts])
    factor = np.sqrt(count / (count - 1)) / [negatives, positives]
    sums *= factor[labels[starts]]
    return aucs.reshape(scores.shape[:2]), sums.reshape(*scores.shape[:2], -1)


def moments(aucs: Array, influences: Array, classes: NDArray) -> dict[str, float]:
    """What rules know of the sum of G mean AUCs: ``aucs`` (G, K), ``influences`` (G, K, P).

    ``fixed`` is its variance over patients when the networks stay; ``interaction`` and ``between``
    what the interaction of seeds and patients, and all variance between seeds, add to it;
    ``freedom`` and ``fixed_freedom`` the degrees of freedom behind ``between`` and ``fixed``.
    """
    seeds = aucs.shape[1]
    mean = influences.mean(axis=1)  # (G, P)
    squares = mean.sum(axis=0) ** 2
    within = ((influences - mean[:, None]) ** 2).sum(axis=(1, 2)) / (seeds - 1)
    between = aucs.var(axis=1, ddof=1)
    count = np.bincount(classes)
    spread = (squares**2).sum() - (np.bincount(classes, squares) ** 2 / count).sum()
    return {
        "mean": aucs.mean(axis=1).sum(),
        "fixed": squares.sum(),
        "fixed_freedom": max(2 * squares.sum() ** 2 / spread, LEAST_FREEDOM),
        "interaction": within.sum() / seeds,
        "between": between.sum() / seeds,
        "freedom": (seeds - 1) * between.sum() ** 2 / (between**2).sum(),
        "paired": aucs.sum(axis=0).var(ddof=1) / seeds,
        "logarithms": np.log(between).sum(),
        "models": len(aucs),
        "seeds": seeds,
    }


def tail(gap: Array, variance: Array, freedom: Array | float) -> Array:
    """Two-sided p-value of a gap by Student's distribution."""
    return 2 * stdtr(np.minimum(freedom, 1e9), -np.abs(gap) / np.sqrt(variance))


def chosen(gap: Array, m: Moments) -> Array:
    """The variance between seeds counts as no less than the interaction, Welch-Satterthwaite.

    A mean AUC also pays for what few patients tell of their own variance; in a difference, whose
    distribution is symmetric, that would only cost power.
    """
    shared = np.maximum(m["fixed"] - m["interaction"], 0)
    seeds = np.maximum(m["between"], m["interaction"])
    share = seeds**2 / m["freedom"]
    share += (m["models"] == 1) * m["fixed"] ** 2 / m["fixed_freedom"]
    return tail(gap, shared + seeds, (shared + seeds) ** 2 / share)


def previous(gap: Array, m: Moments) -> Array:
    """Paired by seed number, seeds' component truncated at zero, freedom of what was seen."""
    variance = m["fixed"] + np.maximum(0, m["paired"] - m["interaction"])
    share = np.minimum(m["paired"] / variance, 1)
    return tail(gap, variance, (m["seeds"] - 1) / share**2)


def unbiased(gap: Array, m: Moments) -> Array:
    """The seeds' component may be negative."""
    variance = np.maximum(m["fixed"] - m["interaction"], 0) + m["between"]
    return tail(gap, variance, m["freedom"] * (variance / m["between"]) ** 2)


def conservative(gap: Array, m: Moments) -> Array:
    """The interaction counts twice: with patients and with seeds."""
    variance = m["fixed"] + m["between"]
    return tail(gap, variance, m["freedom"] * (variance / m["between"]) ** 2)


def pooled(gap: Array, m: Moments) -> Array:
    """Seeds' variance over own and other variants, unless Bartlett's test tells them apart."""
    models, others, freedom = m["models"], m["others"], m["seeds"] - 1
    count = models + others.shape[1]
    pool = (m["between"] * m["seeds"] + others.sum(axis=1)) / count
    statistic = freedom * (count * np.log(pool) - m["logarithms"] - np.log(others).sum(axis=1))
    apart = chdtrc(count - 1, statistic / (1 + (count + 1) / (3 * count * freedom))) < ALPHA
    between = np.where(apart, m["between"], models * pool / m["seeds"])
    freedom = np.where(apart, m["freedom"], count * freedom)
    return chosen(gap, m | {"between": between, "freedom": freedom})


def posterior(gap: Array, m: Moments) -> Array:
    """Seeds' SD averaged over its posterior; a half-Cauchy prior as wide as the patients' SE."""
    node = np.tan(np.pi / 2 * (np.arange(200) + 0.5) / 200)  # of equal prior probability
    seeds = m["fixed"][:, None] * node**2  # variance of the estimate due to seeds
    expected = seeds + m["interaction"][:, None]
    freedom = (m["models"] * (m["seeds"] - 1))[:, None]
    log = -freedom / 2 * (np.log(expected) + m["between"][:, None] / expected)
    weight = np.exp(log - log.max(axis=1, keepdims=True))
    p = 2 * ndtr(-np.abs(gap)[:, None] / np.sqrt(m["fixed"][:, None] + seeds))
    return (p * weight).sum(axis=1) / weight.sum(axis=1)


def patients_alone(gap: Array, m: Moments) -> Array:
    """No seeds at all."""
    return tail(gap, m["fixed"], np.inf)


Rule = Callable[[Array, Moments], Array]
RULES: dict[str, Rule] = {
    "chosen": chosen, "previous": previous, "unbiased": unbiased, "conservative": conservative,
    "pooled": pooled, "posterior": posterior, "patients alone": patients_alone,
}  # fmt: skip


def draw(auc: float, sd: float, seeds: int, datasets: int) -> dict[str, Moments]:
    """Moments of the mean of a, of a minus b and of a minus c on every simulated test set."""
    rng = np.random.default_rng([round(1000 * auc), round(1000 * sd), seeds])
    centres = np.array([separation(auc, sd)] * 2 + [separation(WORSE[auc], sd / 3)])
    pairs = {"level": [0], "null": [0, 1], "effect": [0, 2]}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in pairs}
    for _ in track(range(datasets), datasets, f"AUC {auc:g}, SD {sd:g}, {seeds} seeds"):
        separations = centres[:, :1] + centres[:, 1:] * rng.normal(size=(3, seeds))
        labels, scores, patients = simulate(rng, separations)
        aucs, errors = influence(labels, scores, patients)
        classes = labels[np.flatnonzero(np.diff(patients, prepend=-1))]
        for name, models in pairs.items():
            sign = np.array([1, -1])[: len(models), None]
            row = moments(sign * aucs[models], sign[..., None] * errors[models], classes)
            variance = (sd / 3) ** 2 + row["interaction"] * seeds / len(models)
            row["others"] = variance * rng.chisquare(seeds - 1, OTHERS) / (seeds - 1)
            rows[name].append(row)
    return {
        name: {key: np.array([row[key] for row in part]) for key in part[0]}
        for name, part in rows.items()
    }


def judge(auc: float, drawn: dict[str, Moments]) -> dict[str, dict[str, float | None]]:
    """Coverage, rejections and median width of every rule."""
    level, null, effect = drawn["level"], drawn["null"], drawn["effect"]
    # The interval of a mean AUC is symmetric on the logit scale, its error by the delta method.
    gap = (logit(level["mean"]) - logit(auc)) * level["mean"] * (1 - level["mean"])
    rows: dict[str, dict[str, float | None]] = {}
    for name, rule in RULES.items():
        p = rule(null["mean"], null)
        bound = null["paired" if rule is previous else "between"] < null["interaction"]
        rows[name] = {
            "level": float((rule(gap, level) > ALPHA).mean()),
            "difference": float((rule(effect["mean"] - auc + WORSE[auc], effect) > ALPHA).mean()),
            "rejected": float((p <= ALPHA).mean()),
            "at bound": float(bound.mean()),
            "rejected at bound": float((p[bound] <= ALPHA).mean()) if bound.sum() >= 20 else None,
            "width": float(np.median(2 * half_width(rule, null))),
        }
    return rows


def half_width(rule: Rule, m: Moments) -> Array:
    """How far the interval of each test set reaches: where the rule's p-value is 5 %."""
    low, high = np.zeros_like(m["fixed"]), np.ones_like(m["fixed"])
    for _ in range(14):
        middle = (low + high) / 2
        inside = rule(middle, m) > ALPHA
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return (low + high) / 2


def text(value: float | None, digits: int = 1) -> str:
    """A share in percent."""
    return "" if value is None else f"{100 * value:.{digits}f}"


def show(cells: list[dict[str, Any]]) -> None:
    """Print the chosen rule by cell, and for each rule its range over the cells of one K."""
    columns = ["level", "difference", "rejected", "at bound", "rejected at bound", "width"]
    table = Table(title="The chosen rule; shares in %, width of the difference in points of AUC")
    for name in ("AUC", "SD", "K", *columns):
        table.add_column(name, justify="right")
    for cell in cells:
        row = cell["rules"]["chosen"]
        table.add_row(
            f"{cell['auc']:g}", f"{cell['sd']:g}", str(cell["seeds"]),
            *(text(row[name], 2 if name == "width" else 1) for name in columns),
        )  # fmt: skip
    summary = Table(title="Every rule: least, mean and greatest over AUCs and SDs")
    for name in ("K", "rule", *columns[:3], columns[4], "width ÷ chosen"):
        summary.add_column(name, justify="left" if name == "rule" else "right")
    for seeds in sorted({cell["seeds"] for cell in cells}):
        group = [cell["rules"] for cell in cells if cell["seeds"] == seeds]
        for rule in RULES:
            entries = [str(seeds), rule]
            for name in (*columns[:3], columns[4]):
                values = [rules[rule][name] for rules in group]
                values = [value for value in values if value is not None]
                entries.append(
                    " ".join(text(f(values)) for f in (min, np.mean, max)) if values else ""
                )
            ratio = np.mean([rules[rule]["width"] / rules["chosen"]["width"] for rules in group])
            summary.add_row(*entries, f"{ratio:.2f}")
    console = Console(width=110)
    console.print(table)
    console.print(summary)


def measures_of(cells: list[dict[str, Any]]) -> list[Measure]:
    """How far the chosen rule strays from what it says, with 5 seeds or more."""
    measures = []
    for auc in sorted({cell["auc"] for cell in cells}):
        enough = (cell for cell in cells if cell["auc"] == auc and cell["seeds"] >= 5)
        rows = [cell["rules"]["chosen"] for cell in enough]
        for name, what in (("level", "mean AUC"), ("difference", "difference of two")):
            furthest = max((row[name] for row in rows), key=lambda share: abs(share - 0.95))
            measures.append(
                Measure(
                    f"coverage of a {what}, AUC {auc:g}, 5 seeds or more: furthest from 95 %",
                    abs(furthest - 0.95), 0.015, False, note=f"{furthest:.3f}",
                )
            )  # fmt: skip
        most = max(row["rejected"] for row in rows)
        name = f"false positives at 5 %, AUC {auc:g}, 5 seeds or more: at most"
        measures.append(Measure(name, most, 0.06, False))
    return measures


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--datasets", type=int, default=2000, help="simulated test sets per cell")
    options = parser.parse_args()
    cells = [
        {
            "auc": auc,
            "sd": sd,
            "seeds": seeds,
            "rules": judge(auc, draw(auc, sd, seeds, options.datasets)),
        }
        for auc in WORSE
        for sd in SEED_SDS
        for seeds in SEEDS
    ]
    show(cells)
    show_measures("Intervals over seeds", measures_of(cells), options.output)


if __name__ == "__main__":
    main()
