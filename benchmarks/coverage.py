"""Do the intervals cover as often as they say, and are the p-values uniform under the null?

    python benchmarks/coverage.py [--datasets 1000] [--resamples 1000] [--output FILE]

Binormal scores of known AUC: 600 images of 430 patients, whose images share a random effect. Three
questions: patients alone (every candidate interval, of which BCa and the studentized one exist only
here, and those of single images, which ignore patients); training seeds with patients, where each
seed has a quality and a noise of its own; and paired comparisons of two equally good models.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.sparse import csr_array
from scipy.special import expit, logit
from scipy.stats import kstest, norm

from hybridlungvit.evaluation.bootstrap import PatientClusters, auc_interval, auc_replicates
from hybridlungvit.evaluation.delong import delong_interval, delong_test
from hybridlungvit.evaluation.intervals import Interval, percentile_interval
from hybridlungvit.evaluation.paired import auc_difference_over_seeds
from hybridlungvit.evaluation.seeds import auc_over_seeds
from hybridlungvit.io import write_json
from hybridlungvit.runtime import track

AUCS = (0.80, 0.95, 0.99)
IMAGES, PATIENTS, PNEUMONIA = 600, 430, 0.62
PATIENT_SHARE = 0.5  # of the variance within a class: the correlation of a patient's images
LEVEL = 0.95
SEEDS = (2, 3, 5)
SEED_SD = 0.05  # of the separation, between seeds: at an AUC of 0.95 an SD of 0.0036
SEED_NOISE = 0.1  # share of the variance that is new with each seed
Array = NDArray[np.float64]
Data = tuple[NDArray[np.int64], Array, NDArray[np.int64]]


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
    entries: dict[str, list[tuple[int, float]]] = {}
    for index in track(range(datasets), datasets, f"patients, AUC {auc:g}"):
        data = simulate(np.random.default_rng([1, index]), auc)
        for name, interval in candidates(*data, resamples, index).items():
            entry = (covers(interval, auc), interval.high - interval.low)
            entries.setdefault(name, []).append(entry)
    return {name: summary(entry) for name, entry in entries.items()}


def candidates(
    labels: NDArray[np.int64], scores: Array, patients: NDArray, resamples: int, seed: int
) -> dict[str, Interval]:
    """Every interval of the AUC of ``scores`` (N,) that was weighed, by name."""
    sample = PatientClusters.of(labels, patients)
    member, strata = sample.member, sample.strata
    (auc,), replicates = auc_replicates(labels, scores[None], patients, resamples, seed)
    _, by_image = auc_replicates(labels, scores[None], None, resamples, seed)
    won, counts = won_pairs(labels, scores, member)
    left_out = without_each_patient(won, counts)
    drawn = np.concatenate(list(sample.draws(resamples, seed)))
    variance = resampled_variance(won, counts, np.ones((1, len(strata))))[0]
    variances = resampled_variance(won, counts, drawn)
    half_a_pair = 0.5 / counts.sum(axis=1).prod()
    return {
        "logit": auc_interval(labels, scores, patients, resamples, LEVEL, seed),
        "percentile": percentile_interval(auc, replicates, LEVEL),
        "bca": bca_interval(auc, replicates, left_out, strata, LEVEL),
        "studentized": studentized_interval(
            auc, variance, replicates[:, 0], variances, half_a_pair, LEVEL
        )
        or delong_interval(labels, scores, patients, LEVEL),
        "delong": delong_interval(labels, scores, patients, LEVEL),
        "percentile, images": percentile_interval(auc, by_image, LEVEL),
        "delong, images": delong_interval(labels, scores, None, LEVEL),
    }


def won_pairs(
    labels: NDArray[np.int64], scores: Array, member: NDArray[np.int64]
) -> tuple[Array, Array]:
    """Pairs that each patient's positives win of each patient's negatives, ties half: (P, P).

    Also the numbers of positives and of negatives of each patient: (2, P).
    """
    images = np.arange(len(labels))
    high, low = (csr_array((labels == k, (member, images)), dtype=float) for k in (1, 0))  # (P, N)
    wins = (scores[:, None] > scores) + (scores[:, None] == scores) / 2
    return high @ wins @ low.T, np.stack([high.sum(axis=1), low.sum(axis=1)])


def without_each_patient(won: Array, counts: Array) -> Array:
    """AUC of the sample without patient i, for each i: (P,)."""
    left = won.sum() - won.sum(axis=0) - won.sum(axis=1) + won.diagonal()
    return left / (counts.sum(axis=1, keepdims=True) - counts).prod(axis=0)


def resampled_variance(won: Array, counts: Array, drawn: NDArray) -> Array:
    """Obuchowski's variance (1997) of the AUC of each resample ``drawn`` (R, P): (R,)."""
    m, n = (drawn @ count for count in counts)  # (R,)
    auc = np.einsum("rp,pq,rq->r", drawn, won, drawn, optimize=True) / (m * n)
    above = (drawn @ won.T) / (m * n)[:, None] - (auc / m)[:, None] * counts[0]  # (R, P)
    below = (drawn @ won) / (m * n)[:, None] - (auc / n)[:, None] * counts[1]
    p, q = (drawn @ (count > 0) for count in counts)
    patients = drawn.sum(axis=1)
    return (
        p / (p - 1) * (drawn * above**2).sum(axis=1)
        + q / (q - 1) * (drawn * below**2).sum(axis=1)
        + 2 * patients / (patients - 1) * (drawn * above * below).sum(axis=1)
    )


def bca_interval(
    estimate: float, replicates: Array, left_out: Array, strata: NDArray, level: float
) -> Interval:
    """Bias-corrected and accelerated percentiles (Efron 1987).

    ``left_out`` (P,) are the estimates without each patient and ``strata`` (P,) the groups within
    which patients were drawn; the acceleration is that of several samples. Ties of replicate and
    estimate count half.
    """
    below = (replicates < estimate).mean() + (replicates == estimate).mean() / 2
    cubes = squares = 0.0
    for stratum in np.unique(strata):
        values = left_out[strata == stratum]
        influence = (len(values) - 1) * (values.mean() - values)
        cubes += float((influence**3).sum() / len(values) ** 3)
        squares += float((influence**2).sum() / len(values) ** 2)
    acceleration = cubes / (6 * squares**1.5) if squares > 0 else 0.0
    bias = norm.ppf(below)
    z = bias + norm.ppf([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(replicates, norm.cdf(bias + z / (1 - acceleration * z)))
    return Interval(float(estimate), float(low), float(high))


def studentized_interval(
    estimate: float, variance: float, replicates: Array, variances: Array, limit: float,
    level: float,
) -> Interval | None:  # fmt: skip
    """The bootstrap-t interval on the logit scale (Efron & Tibshirani 1993, § 12.5).

    ``variance`` and ``variances`` (R,) are those of the estimate and of each replicate, on the
    scale of the AUC. A replicate at the edge, without a variance, counts as infinitely far out;
    None where there are so many of them that a limit is infinite.
    """
    kept = np.clip(replicates, limit, 1 - limit)
    shift = logit(kept) - logit(estimate)
    with np.errstate(divide="ignore"):
        t = shift * kept * (1 - kept) / np.sqrt(variances)
    t[(variances <= 0) | (kept != replicates)] = math.inf
    t = np.where(np.isinf(t), np.copysign(math.inf, shift), t)
    tail = (1 - level) / 2
    method = "inverted_cdf"  # no interpolation between a number and infinity
    lower, upper = np.quantile(t, [tail, 1 - tail], method=method)
    if not np.isfinite([lower, upper]).all():
        return None
    error = math.sqrt(variance) / (estimate * (1 - estimate))
    low, high = expit([logit(estimate) - upper * error, logit(estimate) - lower * error])
    return Interval(float(estimate), float(low), float(high))


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
                auc_difference_over_seeds(labels, a, b, patients, resamples, LEVEL, index).p_value
            )
        table[f"crossed, {count} seeds"] = uniformity(found)
    one, ensemble = [], []
    for index in track(range(datasets), datasets, f"null, one model, AUC {auc:g}"):
        # Exchangeable noise on common scores: two fixed models that are equally good.
        rng = np.random.default_rng([4, index])
        labels, common, patients = simulate(rng, auc)
        a, b = common + 0.4 * rng.normal(size=(2, IMAGES))
        one.append(
            auc_difference_over_seeds(labels, a, b, patients, resamples, LEVEL, index).p_value
        )
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
