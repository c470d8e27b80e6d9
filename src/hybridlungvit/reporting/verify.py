"""One's own full run beside the published one: every headline number, reproduced or not."""

import json
import logging
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hybridlungvit.config import Study
from hybridlungvit.errors import StudyError
from hybridlungvit.files import Record, read_json
from hybridlungvit.paths import Layout
from hybridlungvit.reporting.facts import number, signed

log = logging.getLogger(__name__)
EXACT, WITHIN, DIFFERENT = "reproduced exactly", "within its interval", "different"


@dataclass(frozen=True)
class Verdict:
    variant: str
    name: str
    published: dict[str, Any]
    own: dict[str, Any]

    @property
    def words(self) -> str:
        """What the own number is to the published one and its interval."""
        ours, theirs = self.own["estimate"], self.published["estimate"]
        if ours == theirs and all(self.own[k] == self.published[k] for k in ("low", "high")):
            return EXACT
        low, high = self.published["low"], self.published["high"]
        inside = None not in (ours, low, high) and low <= ours <= high
        return WITHIN if inside else DIFFERENT


def verify(study: Study, layout: Layout, against: str) -> list[Verdict]:
    """Compare a study's metrics with the published ones, print the table and return its rows.

    ``against``: a git revision, or a folder with the published ``metrics``. Raises ``StudyError``
    when either side is missing or a number is different.
    """
    rows = []
    for variant in study.variants:
        path = layout.metrics(variant)
        own, published = read_json(path)["headline"], _published(path, against)["headline"]
        rows += [Verdict(variant, name, published[name], own[name])
                 for name in published if name in own]  # fmt: skip
    own = read_json(layout.comparisons)["differences"]
    published = _published(layout.comparisons, against)["differences"]
    rows += [Verdict(v, "AUC difference", published[v], own[v]) for v in published if v in own]
    Console().print(_table(study, rows))
    if _same_runs(study, layout, against):
        log.warning(
            "%s: the runs are the published ones, so nothing was trained again. Run the study, or "
            "name the revision that was published with --against.", layout.root,
        )  # fmt: skip
    different = [row for row in rows if row.words == DIFFERENT]
    if different:
        first = different[0]
        raise StudyError(
            f"{len(different)} of {len(rows)} numbers are different, the first {first.name} of "
            f"{first.variant}. Compare run.json of both: code, data, weights, packages, device."
        )
    return rows


def _same_runs(study: Study, layout: Layout, against: str) -> bool:
    """Whether the records of all trainings are those of the git revision, wall times included."""
    if Path(against).is_dir():
        return False  # it holds metrics alone
    paths = [layout.run(v, s) / "run.json" for v in study.trained_variants() for s in study.seeds]
    return all(path.is_file() and read_json(path) == _published(path, against) for path in paths)


def _published(path: Path, against: str) -> Record:
    folder = Path(against)
    if folder.is_dir():
        return read_json(folder / path.name)
    done = subprocess.run(
        ["git", "show", f"{against}:./{path.as_posix()}"], capture_output=True, text=True
    )
    if done.returncode:
        raise StudyError(
            f"{against}:{path}: no published result ({done.stderr.strip()}). Give --against a git "
            "revision that holds it, or a folder with the published metrics."
        )
    return json.loads(done.stdout, object_hook=lambda values: Record(values, path))


def _table(study: Study, rows: list[Verdict]) -> Table:
    counts = ", ".join(f"{n} {words}" for words, n in _counts(rows))
    table = Table(title=f"{study.study}: {counts}")
    for column in ("variant", "number", "published", "own", "verdict"):
        table.add_column(column)
    for row in rows:
        shown = signed if row.name == "AUC difference" else number
        low, high = (shown(row.published[k]) if row.published[k] is not None else "--"
                     for k in ("low", "high"))  # fmt: skip
        table.add_row(
            row.variant, row.name, f"{shown(row.published['estimate'])} ({low} to {high})",
            shown(row.own["estimate"]), row.words,
        )  # fmt: skip
    return table


def _counts(rows: list[Verdict]) -> Iterator[tuple[str, int]]:
    for words in (EXACT, WITHIN, DIFFERENT):
        yield words, sum(row.words == words for row in rows)
