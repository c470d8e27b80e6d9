"""The rows of the provenance supplement, which every number of the text links to."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from hybridlungvit.config import Study
from hybridlungvit.explain.cases import focus_variants
from hybridlungvit.io import Record, file_sha256
from hybridlungvit.paper.booktabs import Table, label_of
from hybridlungvit.paper.contents import table
from hybridlungvit.paper.format import code, format_range, tex
from hybridlungvit.paper.results import StudyResults
from hybridlungvit.paths import Layout

DIGITS = 10  # of a hash in print
PACKAGES = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "scikit-learn")


def run_anchor(variant: str) -> str:
    """The link target of a variant's rows."""
    return f"run:{variant}"


def _target(anchor: str, text: str) -> str:
    """TeX that makes a text the target of links; names may hold underscores."""
    return rf"\hypertarget{{\detokenize{{{anchor}}}}}{{{text}}}"


def _digest(sha256: str | None, digits: int = DIGITS) -> str:
    """The first digits of a hash in print."""
    return rf"\texttt{{{sha256[:digits]}}}" if sha256 else "none"


@table
def provenance(results: StudyResults) -> Table:
    """The runs behind each variant: hash of the config, epochs, validation AUC and environment."""
    study, letters = results.study, _letters(results)
    rows = []
    for variant in study.variants:
        runs = [results.runs[variant, seed] for seed in study.seeds]
        config = results.predictions[variant, study.seeds[0]]["config_sha256"]
        rows.append(
            {
                "Variant": _target(run_anchor(variant), label_of(results, variant)),
                "Name": code(variant),
                "Config": _digest(config),
                "Best epoch": format_range([run["best_epoch"] for run in runs], 0),
                "Validation AUC": format_range([run["best_val_auc"] for run in runs]),
                "Minutes": format_range([run["wall_seconds"] / 60 for run in runs], 1),
                "In": ", ".join(dict.fromkeys(letters[tuple(_environment(run))] for run in runs)),
            }
        )
    return pd.DataFrame(rows), "lllcccc"


@table
def environments(results: StudyResults) -> Table:
    """Code, packages and machine of every training: a column for each that differs."""
    columns = {letter: dict(parts) for parts, letter in _letters(results).items()}
    rows = [
        {"": name} | {letter: parts[name] for letter, parts in columns.items()}
        for name in columns["A"]
    ]
    return pd.DataFrame(rows), "l" + "l" * len(columns)


def _letters(results: StudyResults) -> dict[tuple[tuple[str, str], ...], str]:
    """A letter for each environment, in the order of the runs."""
    distinct = dict.fromkeys(tuple(_environment(run)) for run in results.runs.values())
    return {environment: chr(ord("A") + i) for i, environment in enumerate(distinct)}


def _environment(run: Record) -> Iterator[tuple[str, str]]:
    """What must agree for two runs to share a column of the environments."""
    commit, _, dirty = run["code_commit"].partition("-")
    yield "Code commit", _digest(commit) + (", with uncommitted changes" if dirty else "")
    yield "Training code", _digest(run["code_sha256"])
    yield "Data manifest", _digest(run["manifest_sha256"])
    yield "Stem weights", _digest(run["weights_sha256"])
    yield "Device", tex(run["device"].replace("(R)", "").replace("(TM)", ""))
    yield "Threads", str(run["threads"])
    yield "Python", f"{run['python']}, {tex(run['system'])}"
    for package in PACKAGES:
        yield package.removesuffix("-python-headless"), tex(run["packages"].get(package, "unknown"))


@table
def records(results: StudyResults) -> Table:
    """The study's records, from which the numbers of the text come, each with its hash."""
    study, layout = results.study, results.layout
    config = study.values_sha256()
    rows = [("config", rf"\texttt{{config/{tex(study.study)}.yaml}}, all values but paths", config)]
    for name, paths in _record_paths(study, layout).items():
        for i, path in enumerate(paths):
            shown = code(path.relative_to(layout.root).as_posix())
            rows.append(("" if i else name, shown, file_sha256(path)))
    cells = [
        {
            "Record": _target(f"record:{name}", text) if name else text,
            "SHA-256": _digest(sha256, 2 * DIGITS),
        }
        for name, text, sha256 in rows
    ]
    return pd.DataFrame(cells), "ll"


def _record_paths(study: Study, layout: Layout) -> dict[str, list[Path]]:
    """The files that numbers of the text are computed from, by the name of their row."""
    return {
        "manifest": [layout.manifest],
        "mask_table": [layout.mask_table],
        "mask_quality": [layout.mask_quality],
        "audit": [layout.audit],
        "audit_results": [layout.audit_results],
        "metrics": [layout.metrics(variant) for variant in study.variants],
        "comparisons": [layout.comparisons],
        "focus": [layout.focus(v).with_suffix(".json") for v in focus_variants(study)],
        "saliency": [layout.saliency(study.reference)],
    }
