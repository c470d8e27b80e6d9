"""What a study's comparisons could show with other numbers of seeds, as a table on the screen."""

import math
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from hybridlungvit.config import Study
from hybridlungvit.evaluation.paired import POWER, components_of
from hybridlungvit.evaluation.power import (
    difference_power,
    equivalence_power,
    minimal_detectable_difference,
)
from hybridlungvit.evaluation.seeds import VarianceComponents
from hybridlungvit.paper.results import current_comparisons
from hybridlungvit.paths import Layout

SEEDS = (3, 5, 10, 20)


class Outlook(NamedTuple):
    """What a comparison of a variant with the reference can show with ``seeds`` of each."""

    variant: str
    seeds: float
    detectable: float
    """The least true difference that is found with a chance of 80 %."""
    finds: float
    """Chance to find a true difference as large as the margin."""
    equivalence: float
    """Chance to show equivalence within the margin where there is no difference."""


def show_power(study: Study, layout: Layout, seeds: list[int]) -> list[Outlook]:
    """Print what each comparison with the reference can show, by number of seeds; return the rows.

    The components of each difference are those that ``compare`` found. The study's own number of
    seeds, in case it is not among ``seeds``, and infinitely many, which is all that these patients
    allow, are added. Nothing is adjusted for several comparisons. Raises ``StudyError`` for a study
    of one seed or fewer than two ``seeds``.
    """
    level, margin = study.statistics.level, study.statistics.margin
    designs = [*sorted({*seeds, len(study.seeds)}), math.inf]
    rows, notes = [], []
    for variant, difference in current_comparisons(study, layout)["differences"].items():
        components = components_of(difference)
        rows += [_outlook(variant, components, k, margin, level) for k in designs]
        if components.at_bound:
            notes.append(f"{variant}: zero for {' and '.join(components.at_bound)}")
    Console().print(_table(rows, margin, len(study.seeds)))
    if any(math.isnan(row.detectable) for row in rows):
        print("--: undefined, as the component of patients is estimated as zero.")
    if notes:
        print("Optimistic, since a component is estimated as zero: " + "; ".join(notes) + ".")
    return rows


def _outlook(
    variant: str, components: VarianceComponents, seeds: float, margin: float, level: float
) -> Outlook:
    """NaN where nothing varies, as with endless seeds and a patients' component of zero."""
    varies = components.patients + (components.seeds + components.interaction) / seeds
    if components.count > 1 and not varies:
        return Outlook(variant, seeds, *[math.nan] * 3)
    return Outlook(
        variant,
        seeds,
        minimal_detectable_difference(components, seeds, POWER, level),
        difference_power(components, margin, seeds, level),
        equivalence_power(components, margin, seeds, level=level),
    )


def _table(rows: list[Outlook], margin: float, own: int) -> Table:
    headings = (
        "variant", "seeds", f"detectable ({100 * POWER:g} %)", f"finds {margin:g}",
        f"shows equivalence within {margin:g}",
    )  # fmt: skip
    table = Table(title="True differences of AUC, variant against reference")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        count = "endless" if math.isinf(row.seeds) else f"{row.seeds}"
        values = [f"{row.detectable:.4f}", f"{row.finds:.0%}", f"{row.equivalence:.0%}"]
        cells = ["--"] * 3 if math.isnan(row.detectable) else values
        table.add_row(row.variant, count + " (own)" * (row.seeds == own), *cells)
    return table
