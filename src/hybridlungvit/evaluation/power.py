"""What a comparison of two models over K seeds can show, from the components of its variance.

The design keeps the test patients and changes the number of seeds. Student's distribution has
the degrees of freedom that the rule in ``seeds.py`` would give; chances are noncentral.
Where a component was estimated as zero (``at_bound``), all of this is optimistic.
"""

import math

from scipy.special import nctdtr, ndtr, stdtrit

from hybridlungvit.evaluation.seeds import VarianceComponents
from hybridlungvit.io import StudyError

MANY = 1e6  # degrees of freedom from which on Student's distribution is the normal one


def _design(components: VarianceComponents, seeds: float) -> tuple[float, float]:
    """Standard error and degrees of freedom of a difference with ``seeds`` for each model."""
    if components.count < 2 or seeds < 2:
        raise StudyError(
            f"the power over seeds needs components from at least 2 seeds (here "
            f"{components.count}) and a design with at least 2 (here {seeds:g})."
        )
    spread = components.seeds + components.interaction
    variance = components.patients + spread / seeds
    if not variance > 0:
        raise StudyError("the models never differ, so there is no variance to plan with.")
    if not spread or math.isinf(seeds):
        return math.sqrt(variance), math.inf
    # What the observed design had behind its seeds' share, for each seed beyond the first.
    share = spread / components.count / components.variance
    behind = components.degrees_of_freedom * share**2 / (components.count - 1)
    return math.sqrt(variance), behind * (seeds - 1) * (variance * seeds / spread) ** 2


def _below(quantile: float, freedom: float, shift: float) -> float:
    """Probability that a noncentral t, expected about ``shift``, stays below ``quantile``."""
    if freedom > MANY:
        return float(ndtr(quantile - shift))
    probability = float(nctdtr(freedom, shift, quantile))
    # SciPy gives NaN in far tails, where the probability is 0 or 1 to all digits in print.
    return float(shift < 0) if math.isnan(probability) else probability


def difference_power(
    components: VarianceComponents, difference: float, seeds: float, level: float = 0.95
) -> float:
    """Chance that the two-sided test at 1 - ``level`` finds a true ``difference``.

    ``components`` are those of a difference (``auc_difference_over_seeds``), ``seeds`` the number
    of each model's seeds, possibly infinite. Raises ``StudyError`` where they allow no answer.
    """
    error, freedom = _design(components, seeds)
    critical, shift = stdtrit(freedom, (1 + level) / 2), abs(difference) / error
    return 1 - _below(critical, freedom, shift) + _below(-critical, freedom, shift)


def minimal_detectable_difference(
    components: VarianceComponents, seeds: float, power: float = 0.8, level: float = 0.95
) -> float:
    """The least true difference that the two-sided test at 1 - ``level`` finds with this power.

    Arguments as for ``difference_power``.
    """
    if not 1 - level < power < 1:
        raise StudyError(f"power {power:g} must lie between {1 - level:g}, the error, and 1.")
    error, _ = _design(components, seeds)
    low, high = 0.0, error
    while difference_power(components, high, seeds, level) < power:
        high *= 2
    for _ in range(60):  # halvings, which end at the same number everywhere
        middle = (low + high) / 2
        enough = difference_power(components, middle, seeds, level) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def equivalence_power(
    components: VarianceComponents, margin: float, seeds: float, level: float = 0.95
) -> float:
    """Chance that two one-sided tests at 1 - ``level`` show equal models equivalent.

    The approximation of Phillips (1990), within ±``margin``; other arguments as for
    ``difference_power``.
    """
    error, freedom = _design(components, seeds)
    critical = stdtrit(freedom, level)
    upper = _below(-critical, freedom, -margin / error)
    return max(0.0, upper - _below(critical, freedom, margin / error))
