"""The evidence trail: the rows of the provenance appendix that every number links to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from hybridlungvit.config import Study
from hybridlungvit.explain.cases import focus_variants
from hybridlungvit.io import file_sha256
from hybridlungvit.paths import Layout
from hybridlungvit.paper.results import Facts, number, tex

DIGITS = 10  # of a hash in print
PACKAGES = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "scikit-learn")
Table = tuple[pd.DataFrame, str]


def study_sha256(study: Study) -> str:
    """Hash of every value of a study but its places."""
    return study.values_sha256()


def run_anchor(variant: str) -> str:
    """The link target of a variant's rows."""
    return f"run:{variant}"


def target(anchor: str, text: str) -> str:
    """TeX that makes a text the target of links; names may hold underscores."""
    return rf"\hypertarget{{\detokenize{{{anchor}}}}}{{{text}}}"


def link(anchor: str, text: str) -> str:
    """TeX of a link in a table; it looks like the text around it."""
    return rf"\traillink{{{anchor}}}{{{text}}}"


def record_paths(study: Study, layout: Layout) -> dict[str, list[Path]]:
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


def provenance(facts: Facts) -> Table:
    """Which run stands behind which row, and the environment it ran in."""
    letters = _letters(facts)
    rows = []
    for (variant, seed), run in facts.runs.items():
        record = facts.predictions[variant, seed]
        first = seed == facts.study.seeds[0]
        name = rf"\texttt{{{tex(variant)}}}"
        rows.append(
            {
                "Variant": target(run_anchor(variant), name) if first else "",
                "Seed": str(seed),
                "Config": digest(record["config_sha256"]),
                "Model": digest(record["model_sha256"]),
                "Predictions": digest(record["predictions_sha256"]),
                "Epoch": f"{run['best_epoch']} of {run['epochs_run']}",
                "Validation AUC": number(run["best_val_auc"]),
                "Minutes": number(run["wall_seconds"] / 60, 1),
                "In": letters[_environment(run)],
            }
        )
    return pd.DataFrame(rows), "lrlllccrc"


def environments(facts: Facts) -> Table:
    """Code, packages and machines of the trainings: a column for each that differs."""
    columns: dict[str, dict[str, str]] = {}
    for environment, letter in _letters(facts).items():
        columns[letter] = dict(environment)
    names = list(next(iter(columns.values())))
    rows = [{"": name} | {letter: values[name] for letter, values in columns.items()}
            for name in names]  # fmt: skip
    return pd.DataFrame(rows), "l" + "l" * len(columns)


def records(facts: Facts) -> Table:
    """The config and every record file with its hash."""
    study, layout = facts.study, facts.layout
    rows = [_row("config", rf"\texttt{{config/{tex(study.study)}.yaml}}, all values but paths",
                 study_sha256(study))]  # fmt: skip
    for name, paths in record_paths(study, layout).items():
        for i, path in enumerate(paths):
            shown = rf"\texttt{{{tex(path.relative_to(layout.root).as_posix())}}}"
            rows.append(_row(name if i == 0 else "", shown, file_sha256(path)))
    return pd.DataFrame(rows), "ll"


def _row(name: str, text: str, sha256: str) -> dict[str, str]:
    return {
        "Record": target(f"record:{name}", text) if name else text,
        "SHA-256": digest(sha256, 2 * DIGITS),
    }


def digest(sha256: str | None, digits: int = DIGITS) -> str:
    """The first digits of a hash in print."""
    return rf"\texttt{{{sha256[:digits]}}}" if sha256 else "none"


def _environment(run: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """What must agree for two runs to share a column of the environments."""
    return tuple(_described(run))


def _described(run: dict[str, Any]) -> Iterator[tuple[str, str]]:
    commit, _, dirty = run["code_commit"].partition("-")
    yield "Code commit", digest(commit) + (", with uncommitted changes" if dirty else "")
    yield "Training code", digest(run["code_sha256"])
    yield "Data manifest", digest(run["manifest_sha256"])
    yield "Stem weights", digest(run["weights_sha256"])
    device = tex(run["device"].replace("(R)", "").replace("(TM)", ""))
    yield "Device", device
    yield "Threads", str(run["threads"])
    yield "Python", f"{run['python']}, {tex(run['system'])}"
    for package in PACKAGES:
        yield package.removesuffix("-python-headless"), tex(run["packages"].get(package, "unknown"))


def _letters(facts: Facts) -> dict[tuple[tuple[str, str], ...], str]:
    """A letter for each environment, in the order of the runs."""
    found = dict.fromkeys(_environment(run) for run in facts.runs.values())
    return {environment: chr(ord("A") + i) for i, environment in enumerate(found)}
