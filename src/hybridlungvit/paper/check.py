"""The check of a paper: a typed number or a claim without proof stops the build."""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hybridlungvit.companions.readme import check_readme
from hybridlungvit.config import Study
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.evaluation.predictions import read_predictions, unreported
from hybridlungvit.io import StudyError, file_sha256, read_json, read_table, rounded, write_json
from hybridlungvit.paper.lint import lint_text
from hybridlungvit.paper.manuscript import Problem
from hybridlungvit.paths import Layout
from hybridlungvit.provenance import committed_record

log = logging.getLogger(__name__)
SHARED = ["patient", "split", "label", "subtype"]
SHOWN = 10
"""Of the numbers that differ from the committed ones, how many are named."""


def check_paper(study: Study, layout: Layout, as_json: bool = False) -> None:
    """Check a study's manuscript, results and README; write ``layout.check`` if all is well.

    ``as_json``: print the problems as a JSON list as well, each with its check, place and advice.

    Records, macros, tables and companions need no check of their own: the same run of the workflow
    has just computed them from the predictions. How they differ from the committed ones is told.
    Raises ``StudyError`` that lists every problem, with its file and how to mend it.
    """
    layout.check.unlink(missing_ok=True)  # an earlier verdict must not outlive a problem
    checks = {
        "text": lint_text(layout),
        "intervals": check_intervals(study, layout),
        "origins": check_origins(study, layout),
        "readme": check_readme(study, layout),
    }
    by_check = {name: list(_all(check)) for name, check in checks.items()}
    problems = [problem for part in by_check.values() for problem in part]
    if as_json:
        rows = [{"check": name} | asdict(p) for name, part in by_check.items() for p in part]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"the paper of {study.study} has {count}:", *map(str, problems)]
        raise StudyError("\n".join(lines))
    _tell_changes(study, layout)
    write_json(layout.check, {"checked": list(checks)})
    log.info("the paper of %s passed: %s", study.study, ", ".join(checks))


def _all(check: Iterator[Problem]) -> Iterator[Problem]:
    """A check's problems; an error that ends the check is the last of them."""
    try:
        yield from check
    except StudyError as error:
        yield Problem("the check stopped", str(error))


def computed_records(study: Study, layout: Layout) -> list[Path]:
    """The records that follow from the predictions."""
    return [
        *(layout.metrics(variant) for variant in study.variants),
        layout.comparisons,
        layout.audit_results,
    ]


def check_intervals(study: Study, layout: Layout) -> Iterator[Problem]:
    """Estimates outside their interval, at any depth of a record."""
    for path in [*computed_records(study, layout), layout.mask_quality, layout.audit]:
        values = dict(_leaves(read_json(path)))
        for key, estimate in values.items():
            interval, _, last = key.rpartition(".")
            low, high = (values.get(f"{interval}.{end}") for end in ("low", "high"))
            known = last == "estimate" and None not in (low, estimate, high)
            if known and not low <= estimate <= high:
                yield Problem(
                    f"{path}: {interval}",
                    f"the estimate {estimate:.6g} lies outside its interval, {low:.6g} to "
                    f"{high:.6g}. Run its stage again; if it stays, the interval is wrong.",
                )


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a record that are no records or lists, with their dotted keys."""
    if isinstance(value, dict | list):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(part, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _tell_changes(study: Study, layout: Layout) -> None:
    """Log which numbers are not those of the last commit, where there is one, and by how much."""
    changes, compared = [], False
    for path in computed_records(study, layout):
        committed = committed_record(path)
        if committed is not None:
            compared = True
            changes += [f"{path}: {line}" for line in differences(committed, read_json(path))]
    for line in changes[:SHOWN]:
        log.warning("%s", line)
    if changes:
        log.warning("%d values differ from the committed ones", len(changes))
    elif compared:
        log.info("every value is the committed one")


def differences(before: Any, after: Any) -> Iterator[str]:
    """A line for each value of a record that changed; for numbers with the change."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    for key in old | new:
        a, b = old.get(key), new.get(key)
        if rounded(a) != rounded(b):
            change = f" ({b - a:+.3g})" if isinstance(a, float) and isinstance(b, float) else ""
            yield f"{key}: {str(a)[:60]} -> {str(b)[:60]}{change}"


def check_origins(study: Study, layout: Layout) -> Iterator[Problem]:
    """Predictions that manifest and run do not bear out, and seeds that are left out.

    Raises ``StudyError`` when predictions belong to another config or were altered.
    """
    manifest = read_manifest(layout.manifest).set_index("path")
    evaluated = set(manifest.index[manifest.split != "train"])
    sha256 = file_sha256(layout.manifest)
    pairs = [(variant, seed) for variant in study.variants for seed in study.seeds]
    for variant, seed in pairs:
        path = layout.predictions(variant, seed)
        folder = layout.run(study.trained_as(variant), seed)
        scored, run = read_json(path.with_suffix(".json")), read_json(folder / "run.json")
        if scored["manifest_sha256"] != sha256 or run["manifest_sha256"] != sha256:
            yield Problem(str(path), f"from another manifest than {layout.manifest}. Score again.")
        if scored["run"] != run or scored["model_sha256"] != run["model_sha256"]:
            yield Problem(str(path), f"scored by another run than {folder / 'run.json'} tells of.")
        predicted = read_predictions(study, variant, seed, layout).set_index("path")
        expected = manifest.reindex(predicted.index)[SHARED].astype(str)
        same = expected.equals(predicted[SHARED].astype(str))
        if not same or set(predicted.index) != evaluated:
            what = f"its images, labels or patients are not those of {layout.manifest}."
            yield Problem(str(path), f"{what} Score again.")
        history = read_table(folder / "history.csv", ("epoch", "val_auc"))
        best = rounded([history.val_auc.max(), run["best_val_auc"]])
        if len(history) != run["epochs_run"] or best[0] != best[1]:
            yield Problem(str(folder / "history.csv"), "is not the history run.json tells of.")
    for path in unreported(study, layout):
        yield Problem(str(path), "exists, but the config does not report it. Report it.")
