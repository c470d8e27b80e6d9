"""Temperature scaling (Guo et al. 2017): one number that makes probabilities mean what they say."""

import math

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.evaluation.auc import Array

DIGITS = 5e-10  # half of the last of nine digits in a prediction file: nothing is surer than that
TEMPERATURES = (0.05, 20.0)  # bounds: validation images without an error would ask for zero


def clipped(probabilities: Array) -> Array:
    """Probabilities kept off 0 and 1 by what a prediction file can tell."""
    return np.clip(probabilities, DIGITS, 1 - DIGITS)


def logits(probabilities: Array) -> Array:
    """log(p / (1 - p)), finite also for a probability that was rounded to 0 or 1."""
    kept = clipped(probabilities)
    return np.log(kept) - np.log1p(-kept)


def sigmoid(values: Array) -> Array:
    """1 / (1 + exp(-x)), whose exp is finite for all logits at the temperatures below.

    scipy's takes 0.4 s to import, which each training would wait for.
    """
    return 1 / (1 + np.exp(-values))


def fit_temperature(labels: NDArray[np.int64], probabilities: Array) -> float:
    """The T that minimises the log loss of sigmoid(logit / T).

    ``labels`` and ``probabilities`` (N,) are validation images. The loss is convex in 1/T, so T is
    the root of its slope: to the last digits, of which a search for the lowest loss leaves half to
    rounding.
    """
    from scipy.optimize import brentq  # takes long to import; who scales needs none of it

    margins = (2 * labels - 1) * logits(probabilities)  # (N,), positive where the call is right

    def slope(log_temperature: float) -> float:
        return float((margins * sigmoid(-margins / math.exp(log_temperature))).mean())

    low, high = map(math.log, TEMPERATURES)
    if slope(low) >= 0:  # colder is better still: no image is wrong
        return TEMPERATURES[0]
    if slope(high) <= 0:
        return TEMPERATURES[1]
    return math.exp(brentq(slope, low, high, xtol=1e-14, rtol=1e-14))


def scaled(probabilities: Array, temperature: float) -> Array:
    """Probabilities at another temperature."""
    return sigmoid(logits(probabilities) / temperature)
