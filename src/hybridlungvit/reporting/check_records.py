"""Checks of the records whose rows are stored beside them: lung focus and mask quality."""

from collections.abc import Iterator

from hybridlungvit.config import Study
from hybridlungvit.csvfile import read_table
from hybridlungvit.evaluation.mask_quality import quality_record
from hybridlungvit.evaluation.scores import scores_on
from hybridlungvit.explain.cases import decision_threshold, focus_variants
from hybridlungvit.explain.focus import COLUMNS, MEASURES, summarise
from hybridlungvit.files import file_sha256, read_json
from hybridlungvit.paths import Layout
from hybridlungvit.reporting.check_results import differences
from hybridlungvit.reporting.problems import Problem


def check_records(study: Study, layout: Layout) -> Iterator[Problem]:
    """Summaries that differ from what their rows give, and rows that belong to other predictions.

    What needs images or weights (the rows themselves, Dice, the audit's copies, the maps' checks)
    is taken as recorded.
    """
    for variant in focus_variants(study):
        yield from _focus(study, variant, layout)
    stored = read_json(layout.mask_quality)
    again = quality_record(study, layout)
    kept = {key: stored.get(key) for key in again}
    yield from differences(layout.mask_quality, kept, again, "", str(layout.mask_table))


def _focus(study: Study, variant: str, layout: Layout) -> Iterator[Problem]:
    rows = layout.focus(variant)
    record = read_json(rows.with_suffix(".json"))
    if record["rows_sha256"] != file_sha256(rows):
        yield Problem(str(rows), f"altered. Run `focus --variant {variant}` again.")
        return
    table = read_table(rows, (*COLUMNS, *MEASURES), {"patient": str})
    scored, scores = scores_on(study, variant, layout)
    expected = scored.assign(probability=scores[0])[COLUMNS]  # the first seed's, as `focus` takes
    if not table[COLUMNS].equals(expected):
        yield Problem(
            str(rows), "its images, labels or probabilities are not those predicted. Run "
            f"`focus --variant {variant}` again.",
        )  # fmt: skip
    again = summarise(table, study, decision_threshold(study, variant))
    path = rows.with_suffix(".json")
    yield from differences(path, record["groups"], again, "groups", str(rows))
