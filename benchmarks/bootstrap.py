"""Speed of the AUC bootstrap beside a loop over scikit-learn, on the same resamples.

    python benchmarks/bootstrap.py [--output FILE]

624 test images of 428 patients with tied scores, 10,000 resamples of patients. The loop calls
roc_auc_score for each resample, its images repeated as often as drawn; since it is slow it runs on
some of the resamples and its time is scaled up. Both times are of the AUCs alone, given the draws;
the time of the whole interval, draws included, stands beside them.
"""

import statistics
import tracemalloc

import numpy as np
from report import REPEATS, Measure, arguments, median_ratio, show, timed_rounds
from sklearn.metrics import roc_auc_score

from hybridlungvit.evaluation.auc import auc_function
from hybridlungvit.evaluation.bootstrap import PatientClusters
from hybridlungvit.evaluation.seeds import auc_interval

IMAGES, PATIENTS = 624, 428


def measure(resamples: int, looped: int, repeats: int = REPEATS) -> list[Measure]:
    """The loop's time in ours and the memory of ours; the loop runs on ``looped`` resamples."""
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

    def interval() -> None:
        auc_interval(labels, scores, member, resamples)

    seconds = timed_rounds({"sums": sums, "loop": loop, "interval": interval}, repeats)
    slow = [value * resamples / looped for value in seconds["loop"]]
    tracemalloc.start()
    interval()
    sums()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    gap = np.abs(sums()[::every][:looped] - loop()).max()
    whole = statistics.median(seconds["interval"])
    return [
        Measure(
            f"AUC of {resamples:,} resamples: loop over scikit-learn ÷ ours",
            median_ratio(slow, seconds["sums"]), 100, True,
            note=f"they differ by {gap:.0e}; the whole interval takes {whole:.2f} s",
        ),
        Measure(
            "its memory in MB", (peak + sum(drawn.nbytes for drawn in chunks)) / 1e6, 500, False
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    options = arguments(__doc__).parse_args()
    show("Bootstrap", measure(10_000, 300), options.output)
