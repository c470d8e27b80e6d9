"""Temperature scaling (Guo et al. 2017): one number that makes probabilities mean what they say."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

Array = NDArray[np.float64]
DIGITS = 5e-10  # half of the last of nine digits in a prediction file: nothing is surer than that
TEMPERATURES = (0.05, 20.0)  # bounds: validation images without an error would ask for zero


def clipped(probabilities: Array) -> Array:
    """Probabilities kept off 0 and 1 by what a prediction file can tell."""
    return np.clip(probabilities, DIGITS, 1 - DIGITS)


def logits(probabilities: Array) -> Array:
    """log(p / (1 - p)), finite also for a probability that was rounded to 0 or 1."""
    return logit(clipped(probabilities))


def fit_temperature(labels: NDArray[np.int64], probabilities: Array) -> float:
    """The T that minimises the log loss of sigmoid(logit / T).

    ``labels`` and ``probabilities`` (N,) are validation images.
    """
    sign, values = 2 * labels - 1, logits(probabilities)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -sign * values / math.exp(log_temperature)).mean())

    bounds = tuple(map(math.log, TEMPERATURES))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return math.exp(found.x)


def scaled(probabilities: Array, temperature: float) -> Array:
    """Probabilities at another temperature."""
    return expit(logits(probabilities) / temperature)
