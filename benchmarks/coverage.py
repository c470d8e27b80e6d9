"""Do the intervals cover as often as they say, and are the p-values uniform under the null?

    python benchmarks/coverage.py [--datasets 1000] [--resamples 1000] [--output FILE]

Binormal scores of known AUC: 600 images of 430 patients, whose images share a random effect. Three
questions: patients alone (every candidate interval, and the bootstrap of single images that
ignores patients); training seeds with patients, where each seed has a quality and a noise of its
own; and paired comparisons of two equally good models.
"""

import argparse
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import kstest, norm

from hybridlungvit.evaluation.bootstrap import Method, auc_interval
from hybridlungvit.evaluation.compare import paired_auc_difference
from hybridlungvit.evaluation.delong import delong_test
from hybridlungvit.evaluation.seeds import auc_over_seeds
from hybridlungvit.files import write_json
from hybridlungvit.progress import track

AUCS = (0.80, 0.95, 0.99)
IMAGES, PATIENTS, PNEUMONIA = 600, 430, 0.62
PATIENT_SHARE = 0.5  # of the variance within a class: the correlation of a patient's images
LEVEL = 0.95
SEEDS = (2, 3, 5)
SEED_SD = 0.05  # of the separation, between seeds: at an AUC of 0.95 an SD of 0.0036
SEED_NOISE = 0.1  # share of the variance that is new with each seed
Data = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]


def simulate(rng: np.random.Generator, auc: float, seeds: int = 0, models: int = 1) -> Data:
    """Labels (N,), scores and patients (N,) with the stated AUC in expectation over all.

    Scores are (N,) of one model without seeds, else (models, seeds, N).
    """
    patients = np.r_[np.arange(PATIENTS), rng.integers(PATIENTS, size=IMAGES - PATIENTS)]
    label = (np.arange(PATIENTS) < PNEUMONIA * PATIENTS).astype(int)[patients]
    own = rng.normal(size=PATIENTS)[patients] * np.sqrt(PATIENT_SHARE)
    common = own + rng.normal(size=IMAGES) * np.sqrt(1 - PATIENT_SHARE)
    if not seeds:
        return label, np.sqrt(2) * norm.ppf(auc) * label + common, patients
    # Over seeds the separation is normal, so that the mean AUC is Phi(d / sqrt(2 + sd^2)).
    centre = norm.ppf(auc) * np.sqrt(2 + SEED_SD**2)
    separation = centre + SEED_SD * rng.normal(size=(models, seeds, 1))
    fresh = rng.normal(size=(models, seeds, IMAGES))
    scores = np.sqrt(1 - SEED_NOISE) * common + np.sqrt(SEED_NOISE) * fresh
    return label, separation * label + scores, patients


def covers(interval: Any, truth: float) -> int:
    """-1 where the interval lies below the truth, 1 above, 0 where it covers."""
    return -1 if interval.high < truth else int(interval.low > truth)


def patients_alone(auc: float, datasets: int, resamples: int) -> dict[str, dict[str, float]]:
    """Misses and mean width of every candidate interval for one model."""
    found: dict[str, list[tuple[int, float]]] = {}
    for index in track(range(datasets), datasets, f"patients, AUC {auc:g}"):
        labels, scores, patients = simulate(np.random.default_rng([1, index]), auc)
        runs = {name: (patients, name) for name in get_args(Method)}
        runs["percentile, images"] = (None, "percentile")
        runs["delong, images"] = (None, "delong")
        for name, (clusters, method) in runs.items():
            found_here = auc_interval(
                labels, scores, clusters, resamples, LEVEL, index, method=method
            )
            entry = (covers(found_here, auc), found_here.high - found_here.low)
            found.setdefault(name, []).append(entry)
    return {name: summary(entries) for name, entries in found.items()}


def summary(entries: list[tuple[int, float]]) -> dict[str, float]:
    """Coverage, its standard error, the misses on either side, and the mean width."""
    sides, widths = np.array(entries).T
    coverage = float((sides == 0).mean())
    return {
        "coverage": coverage,
        "error": float(np.sqrt(coverage * (1 - coverage) / len(sides))),
        "below": float((sides < 0).mean()),
        "above": float((sides > 0).mean()),
        "width": float(widths.mean()),
    }


def seeds_and_patients(auc: float, datasets: int, resamples: int) -> dict[str, dict[str, float]]:
    """The crossed interval for a mean over seeds, and the one that resamples patients alone."""
    table = {}
    for count in SEEDS:
        crossed, alone = [], []
        for index in track(range(datasets), datasets, f"{count} seeds, AUC {auc:g}"):
            rng = np.random.default_rng([2, count, index])
            labels, scores, patients = simulate(rng, auc, count)
            both = auc_over_seeds(labels, scores[0], patients, resamples, LEVEL, index)
            crossed.append((covers(both.interval, auc), both.interval.high - both.interval.low))
            one = both.patients
            alone.append((covers(one, auc), one.high - one.low))
        table[f"crossed, {count} seeds"] = summary(crossed)
        table[f"patients alone, {count} seeds"] = summary(alone)
    return table


def null_p_values(auc: float, datasets: int, resamples: int) -> dict[str, dict[str, float]]:
    """Rejections at 5 % and a test of uniformity for two models of equal expected AUC."""
    table = {}
    for count in SEEDS:
        found = []
        for index in track(range(datasets), datasets, f"null, {count} seeds, AUC {auc:g}"):
            rng = np.random.default_rng([3, count, index])
            labels, (a, b), patients = simulate(rng, auc, count, models=2)
            found.append(
                paired_auc_difference(labels, a, b, patients, resamples, LEVEL, index).p_value
            )
        table[f"crossed, {count} seeds"] = uniformity(found)
    one, ensemble = [], []
    for index in track(range(datasets), datasets, f"null, one model, AUC {auc:g}"):
        # Exchangeable noise on common scores: two fixed models that are equally good.
        rng = np.random.default_rng([4, index])
        labels, common, patients = simulate(rng, auc)
        a, b = common + 0.4 * rng.normal(size=(2, IMAGES))
        one.append(paired_auc_difference(labels, a, b, patients, resamples, LEVEL, index).p_value)
        ensemble.append(delong_test(labels, a, b, patients).p_value)
    return table | {"patients alone": uniformity(one), "DeLong": uniformity(ensemble)}


def uniformity(p_values: list[float]) -> dict[str, float]:
    values = np.array(p_values)
    return {
        "rejected": float((values <= 0.05).mean()),
        "rejected at 1 %": float((values <= 0.01).mean()),
        "KS p": float(kstest(values, "uniform").pvalue),
    }


def show(title: str, results: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print one table: a row for each AUC and method."""
    columns = list(next(iter(next(iter(results.values())).values())))
    table = Table(title=title)
    for name in ("AUC", "method", *columns):
        table.add_column(name, justify="left" if name == "method" else "right")
    for auc, rows in results.items():
        for name, row in rows.items():
            table.add_row(auc, name, *(f"{row[column]:.4f}" for column in columns))
    Console(width=100).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", type=int, default=1000, help="simulated test sets per row")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples in each")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    given = parser.parse_args()
    size = (given.datasets, given.resamples)
    parts = {
        "patients": (f"Coverage of {LEVEL:.0%} intervals, one model", patients_alone),
        "seeds": (f"Coverage of {LEVEL:.0%} intervals, mean over seeds", seeds_and_patients),
        "null": ("p-values of equal models", null_p_values),
    }
    record: dict[str, Any] = {"datasets": given.datasets, "resamples": given.resamples}
    for name, (title, measure) in parts.items():
        record[name] = {f"{auc:g}": measure(auc, *size) for auc in AUCS}
        show(title, record[name])
    if given.output is not None:
        write_json(given.output, record)


if __name__ == "__main__":
    main()
