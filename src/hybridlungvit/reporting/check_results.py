"""Checks of what was generated: all of it is computed again from the stored predictions."""

import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from hybridlungvit.audit.results import write_audit_results
from hybridlungvit.config import Study
from hybridlungvit.configfile import load_other
from hybridlungvit.evaluation.comparisons import compare_variants
from hybridlungvit.evaluation.evaluate import evaluate_variant
from hybridlungvit.files import read_json
from hybridlungvit.paths import Layout
from hybridlungvit.progress import track
from hybridlungvit.reporting.audit_report import write_audit_tables
from hybridlungvit.reporting.companions import write_companions
from hybridlungvit.reporting.facts import number, signed
from hybridlungvit.reporting.macros import write_macros
from hybridlungvit.reporting.manuscript import Command, commands, read_source
from hybridlungvit.reporting.problems import Problem
from hybridlungvit.reporting.tables import write_tables

TOLERANCE = 1e-7  # relative: another processor may sum in another order
RESULT = ("estimate", "low", "high", "sd")


def check_results(study: Study, layout: Layout, workers: int = 1) -> Iterator[Problem]:
    """Everything generated that differs from what the predictions give, or contradicts itself."""
    records = [*(layout.metrics(v) for v in study.variants), layout.comparisons,
               layout.audit_results]  # fmt: skip
    for path in [*records, layout.mask_quality, layout.audit]:
        yield from _intervals(path, read_json(path))
    yield from _printed(study, layout)
    with recomputed(study, layout, workers) as fresh:
        for path in records:
            again = fresh.root / path.relative_to(layout.root)
            found = list(differences(path, read_json(path), read_json(again), ""))
            yield from found
            if not found:
                # Equal up to the last digits of a sum: tables print the hash of the stored record.
                shutil.copy(path, again)
        write_macros(study, fresh)
        write_tables(study, fresh)
        write_audit_tables(study, fresh)
        write_companions(study, fresh)
        made = (p for p in fresh.generated.rglob("*") if p.suffix in (".tex", ".md", ".json"))
        for again in sorted(made):
            path = layout.generated / again.relative_to(fresh.generated)
            yield from _stale(path, again)


@contextmanager
def recomputed(study: Study, layout: Layout, workers: int) -> Iterator[Layout]:
    """A temporary layout: metrics and comparisons computed from the predictions anew.

    What is not a function of the predictions (manifest, masks, audit, maps, run records) is shared
    with ``layout``, and so is the other study. Raises ``StudyError`` when predictions belong to
    another config or are altered.
    """
    with tempfile.TemporaryDirectory(prefix="check-") as folder:
        fresh = replace(layout, results=Path(folder) / "results", paper=Path(folder) / "paper")
        fresh.root.mkdir(parents=True)
        fresh.paper.mkdir()
        other = load_other(study)
        if other is not None and (layout.results / other.study).is_dir():
            known = (layout.results / other.study).resolve()
            (fresh.results / other.study).symlink_to(known)
        for entry in layout.root.iterdir():
            if entry.name not in (layout.comparisons.parent.name, layout.audit_results.name):
                (fresh.root / entry.name).symlink_to(entry.resolve())
        for entry in layout.paper.resolve().parent.iterdir():  # checklists point to sources
            if not (Path(folder) / entry.name).exists():
                (Path(folder) / entry.name).symlink_to(entry)
        for entry in layout.paper.iterdir():
            if entry.name not in ("generated", "build"):
                (fresh.paper / entry.name).symlink_to(entry.resolve())
        _evaluate(study, fresh, workers)
        compare_variants(study, fresh)
        write_audit_results(study, fresh)
        yield fresh


def _evaluate(study: Study, fresh: Layout, workers: int) -> None:
    """Compute every variant's metrics, in several processes where asked to."""
    variants, what = list(study.variants), "computing metrics again"
    if workers == 1:
        for variant in track(variants, len(variants), what):
            evaluate_variant(study, variant, fresh)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        jobs = [pool.submit(evaluate_variant, study, variant, fresh) for variant in variants]
        for job in track(jobs, len(jobs), what):
            job.result()


def _intervals(path: Path, value: Any, key: str = "") -> Iterator[Problem]:
    """Estimates outside their interval, at any depth of a record."""
    if isinstance(value, dict):
        low, middle, high = (value.get(name) for name in ("low", "estimate", "high"))
        if None not in (low, middle, high) and not low <= middle <= high:
            yield Problem(
                f"{path}: {key}",
                f"the estimate {middle:.6g} lies outside its interval, {low:.6g} to {high:.6g}. "
                "Run its stage again; if it stays, the interval is wrong.",
            )
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, part in items:
        if isinstance(part, (dict, list)):
            yield from _intervals(path, part, f"{key}.{name}" if key else str(name))


def _printed(study: Study, layout: Layout) -> Iterator[Problem]:
    """Results in ``macros.tex`` that are no rounding of the stored ones or leave their interval."""
    source = read_source(layout.generated / "macros.tex")
    metrics = {variant: read_json(layout.metrics(variant)) for variant in study.variants}
    differences = read_json(layout.comparisons)["differences"]
    for found in commands(source, ("setresult",), 6):
        metric, variant, *cells = found.arguments
        if variant in metrics:
            value = metrics[variant]["headline"][metric]
            yield from _rounding(source.place(found.start), found, cells,
                                 [number(value[name]) for name in RESULT])  # fmt: skip
    for found in commands(source, ("setdifference",), 5):
        variant, *cells = found.arguments
        if variant in differences:
            value = differences[variant]
            expected = [*(signed(value[name]) for name in RESULT[:3]), value["verdict"]]
            yield from _rounding(source.place(found.start), found, cells, expected)


def _rounding(
    place: str, found: Command, cells: list[str], expected: list[str]
) -> Iterator[Problem]:
    name = " ".join(found.arguments[: -len(cells)])
    for cell, right in zip(cells, expected, strict=True):
        if cell != right:
            yield Problem(
                place, f"{name}: {cell!r} is not how the stored value is printed, {right!r}. "
                "Run `macros` again.",
            )  # fmt: skip
    values = [float(c) if re.fullmatch(r"[+-]?\d+\.\d+", c) else math.nan for c in cells[:3]]
    if values[0] < values[1] or values[0] > values[2]:
        yield Problem(
            place, f"{name}: the printed estimate {cells[0]} lies outside its interval, {cells[1]} "
            f"to {cells[2]}.",
        )  # fmt: skip


def differences(
    path: Path, stored: Any, again: Any, key: str, source: str = "the predictions"
) -> Iterator[Problem]:
    """Where a stored record differs from the one computed again from its source."""
    if isinstance(stored, dict) and isinstance(again, dict) and stored.keys() == again.keys():
        for name in stored:
            yield from differences(
                path, stored[name], again[name], f"{key}.{name}".strip("."), source
            )
    elif isinstance(stored, list) and isinstance(again, list) and len(stored) == len(again):
        for i, (a, b) in enumerate(zip(stored, again, strict=True)):
            yield from differences(path, a, b, f"{key}.{i}", source)
    elif not _same(stored, again):
        shown = [json.dumps(value)[:60] for value in (stored, again)]
        yield Problem(
            f"{path}: {key}",
            f"stale: it says {shown[0]}; from {source} it is {shown[1]}. Run its stage again.",
        )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return type(a) is type(b) and a == b


def _stale(path: Path, again: Path) -> Iterator[Problem]:
    """Lines of a generated file that are not what is generated now."""
    if not path.is_file():
        yield Problem(str(path), "missing. Run the workflow's paper stages again.")
        return
    stored, fresh = path.read_text("utf-8").splitlines(), again.read_text("utf-8").splitlines()
    if stored == fresh:
        return
    missing = [line for line in fresh if line not in stored]
    for i, line in enumerate(stored):
        if line not in fresh:
            right = next((new for new in missing if _key(new) == _key(line)), None)
            now = "is no longer generated" if right is None else f"is now {right!r}"
            missing = [new for new in missing if new != right]
            yield Problem(f"{path}:{i + 1}", f"stale: {line!r} {now}. Run its stage again.")
    for line in missing:
        yield Problem(str(path), f"stale: lacks {line!r}. Run its stage again.")
    if set(stored) == set(fresh):
        yield Problem(
            str(path), "stale: lines repeated, lost or in another order. Run its stage again."
        )


def _key(line: str) -> str:
    """What two lines about one thing share: a macro with its key, a table's first cell."""
    return line.split("}")[0].split(" & ")[0]
