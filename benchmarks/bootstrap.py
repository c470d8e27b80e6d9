"""Speed of the AUC bootstrap beside a loop over scikit-learn, on the same resamples.

    python benchmarks/bootstrap.py [--output FILE]

624 test images of 428 patients with tied scores, 10,000 resamples of patients. The loop calls
roc_auc_score for each resample, its images repeated as often as drawn; since it is slow it runs on
some of the resamples and its time is scaled up. Both times are of the AUCs alone, given the draws;
the time of the whole interval, draws included, stands beside them.
"""

import argparse
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from hybridlungvit.evaluation.auc import auc_function
from hybridlungvit.evaluation.bootstrap import PatientClusters, auc_interval
from hybridlungvit.io import write_json

IMAGES, PATIENTS = 624, 428


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(resamples: int, looped: int, repeats: int) -> dict[str, float]:
    """Medians over ``repeats`` of each time in seconds, the ratio, and the largest difference."""
    rng = np.random.default_rng(0)
    member = np.r_[np.arange(PATIENTS), rng.integers(PATIENTS, size=IMAGES - PATIENTS)]
    labels = (member % 8 > 2).astype(np.int64)
    scores = (1.5 * labels + rng.normal(size=IMAGES)).round(1)  # many ties
    chunks = list(PatientClusters.of(labels, member).draws(resamples, 0))
    every = resamples // looped
    chosen = np.concatenate(chunks)[::every][:looped]

    def loop() -> list[float]:
        rows = (np.repeat(np.arange(IMAGES), times[member]) for times in chosen)
        return [roc_auc_score(labels[row], scores[row]) for row in rows]

    def sums() -> np.ndarray:
        auc = auc_function(labels, scores, member)
        return np.concatenate([auc(drawn) for drawn in chunks])

    fast, slow, whole = [], [], []
    for _ in range(repeats):  # alternately, so that a busy machine slows both
        fast.append(seconds(sums))
        slow.append(seconds(loop) * resamples / looped)
        whole.append(seconds(lambda: auc_interval(labels, scores, member, resamples)))
    tracemalloc.start()
    auc_interval(labels, scores, member, resamples)
    sums()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    gap = np.abs(sums()[::every][:looped] - loop()).max()
    times = {name: float(np.median(t)) for name, t in
             {"sums": fast, "loop": slow, "interval": whole}.items()}  # fmt: skip
    return times | {
        "ratio": float(np.median(np.array(slow) / fast)),
        "ratio_interval": float(np.median(np.array(slow) / whole)),
        "difference": float(gap),
        "megabytes": (peak + sum(drawn.nbytes for drawn in chunks)) / 1e6,
        "resamples": resamples,
        "looped": looped,
        "repeats": repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--looped", type=int, default=300, help="resamples that the loop runs")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    given = parser.parse_args()
    record = measure(given.resamples, given.looped, given.repeats)
    table = Table(title=f"{given.resamples:,} resamples of {PATIENTS} patients, {IMAGES} images")
    for name in ("", "seconds", "loop's time / this"):
        table.add_column(name, justify="left" if name == "" else "right")
    table.add_row("loop over scikit-learn (scaled up)", f"{record['loop']:.2f}", "1")
    table.add_row("integers in order", f"{record['sums']:.3f}", f"{record['ratio']:.0f}")
    interval = (f"{record['interval']:.3f}", f"{record['ratio_interval']:.0f}")
    table.add_row("whole interval, draws included", *interval)
    console = Console()
    console.print(table)
    console.print(f"largest difference {record['difference']:.1e}, {record['megabytes']:.0f} MB")
    if given.output is not None:
        write_json(given.output, record)


if __name__ == "__main__":
    main()
