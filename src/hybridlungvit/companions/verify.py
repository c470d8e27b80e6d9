"""One's own full run beside the published one: every headline number, reproduced or not."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hybridlungvit.config import Study
from hybridlungvit.io import Record, StudyError, read_json, rounded
from hybridlungvit.paper.format import format_interval, number, signed
from hybridlungvit.paper.results import current_comparisons, current_metrics
from hybridlungvit.paths import Layout
from hybridlungvit.provenance import committed_record

EXACT, WITHIN, DIFFERENT = "reproduced exactly", "within its interval", "different"
DIFFERENCE = "AUC difference"


@dataclass(frozen=True)
class Verdict:
    """A number of one's own run beside the published one."""

    variant: str
    name: str
    published: dict[str, Any]
    repeated: dict[str, Any]

    @property
    def words(self) -> str:
        """What the repeated number is to the published one and its interval."""
        keys = ("estimate", "low", "high")
        estimate, *_ = repeated = rounded([self.repeated[key] for key in keys])
        _, low, high = published = rounded([self.published[key] for key in keys])
        if repeated == published:
            return EXACT
        inside = None not in (estimate, low, high) and low <= estimate <= high
        return WITHIN if inside else DIFFERENT


def verify(study: Study, layout: Layout, against: str, every: bool = False) -> list[Verdict]:
    """Compare a study's metrics with the published ones, print how many agree, return the rows.

    ``against``: a git revision, or a folder with the published ``metrics``; ``every``: print each
    number. Raises ``StudyError`` when either side is missing, when nothing was trained again, or
    when a number is different.
    """
    _require_own_runs(study, layout, against)
    rows = []
    for variant in study.variants:
        published = _published(layout.metrics(variant), against)["headline"]
        repeated = current_metrics(study, variant, layout)["headline"]
        rows += [Verdict(variant, name, published[name], repeated[name])
                 for name in published if name in repeated]  # fmt: skip
    repeated = current_comparisons(study, layout)["differences"]
    published = _published(layout.comparisons, against)["differences"]
    rows += [Verdict(v, DIFFERENCE, published[v], repeated[v]) for v in published if v in repeated]
    counts = Counter(row.words for row in rows)
    summary = ", ".join(f"{counts[words]} {words}" for words in (EXACT, WITHIN, DIFFERENT))
    Console().print(_table(rows, summary) if every else f"{study.study}: {summary}")
    different = [row for row in rows if row.words == DIFFERENT]
    if different:
        raise StudyError(
            f"{len(different)} of {len(rows)} numbers are different, the first {different[0].name} "
            f"of {different[0].variant}. Compare run.json of both: code, data, weights, packages, "
            "device."
        )
    return rows


def _require_own_runs(study: Study, layout: Layout, against: str) -> None:
    """Raise ``StudyError`` where a training is that of the git revision, is missing or unused."""
    why = ""
    for variant in study.variants:
        for seed in study.seeds:
            path = layout.run(study.trained_as(variant), seed) / "run.json"
            table = layout.predictions(variant, seed).with_suffix(".json")
            if not path.is_file():
                why = why or f"{path} is missing"
            # A folder holds metrics alone. Wall times tell a run from its repetition.
            elif not Path(against).is_dir() and read_json(path) == committed_record(path, against):
                why = why or f"{path} is that of {against}"
            elif read_json(table)["run"] != read_json(path):
                why = why or f"{table} was scored by another run"
    if why:
        raise StudyError(
            f"{study.study}: nothing to verify: {why}. Run the whole study yourself; if you have "
            "committed it, name the revision that was published with --against."
        )


def _published(path: Path, against: str) -> Record:
    folder = Path(against)
    record = read_json(folder / path.name) if folder.is_dir() else committed_record(path, against)
    if record is None:
        raise StudyError(
            f"{against}: neither a folder nor a git revision with {path}. Give --against one that "
            "holds the published metrics."
        )
    return record


def _table(rows: list[Verdict], title: str) -> Table:
    table = Table(title=title)
    for name in ("variant", "number", "published", "own", "verdict"):
        table.add_column(name, overflow="fold")
    for row in rows:
        show = signed if row.name == DIFFERENCE else number
        published = format_interval(row.published, show=show)
        table.add_row(row.variant, row.name, published, show(row.repeated["estimate"]), row.words)
    return table
