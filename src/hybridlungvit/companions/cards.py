"""What goes with the paper: checklists, model card and datasheet."""

from collections.abc import Callable
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined, TemplateError

from hybridlungvit import __version__
from hybridlungvit.companions.checklists import (
    checklist_rows,
    read_checklist,
    require_no_typed_numbers,
)
from hybridlungvit.config import Study
from hybridlungvit.data.manifest import unit_of
from hybridlungvit.evaluation.metrics import METRICS
from hybridlungvit.io import StudyError, file_sha256, write_text
from hybridlungvit.paper.audit_report import SHIFT_NAMES, SHORTCUT_NAMES, audit_records
from hybridlungvit.paper.contents import CHECKLISTS
from hybridlungvit.paper.error_tables import BYS
from hybridlungvit.paper.macros import SOURCES
from hybridlungvit.paper.results import (
    SPLIT_NAMES,
    Facts,
    format_interval,
    gather,
    number,
    signed,
)
from hybridlungvit.paper.statistics_tables import NAMES
from hybridlungvit.paths import Layout

Context = dict[str, Any]
FILTERS: dict[str, Callable[[Any], str]] = {
    "count": lambda value: f"{value:,}",
    "number": number,
    "tenth": lambda value: number(value, 1),
    "percent": lambda share: f"{100 * share:.3g} %",
    "interval": lambda found: "--" if found is None else format_interval(found),
    "difference": lambda found: format_interval(found, show=signed),
    "p": lambda value: "exploratory" if value is None else _p_value(value),
    "short": lambda digest: digest[:12],
}


def write_companions(study: Study, layout: Layout) -> None:
    """Write the companions below ``layout.companions``.

    Raises ``StudyError`` for an unanswered item of a checklist, for one that points nowhere, for a
    number typed into a template, and for records that do not belong together.
    """
    facts = gather(study, layout)
    synthetic = study.data.source == "phantom"
    shared = {"study": study, "synthetic": synthetic}
    texts = {}
    for name in CHECKLISTS:
        checklist = read_checklist(name, layout)
        rows = checklist_rows(checklist, layout, synthetic)
        context = shared | {"name": name, "checklist": checklist, "rows": rows}
        texts[f"{name}.md"] = render(layout, "checklist", context)
    context = shared | card_context(facts, layout)
    for name in ("model_card", "datasheet"):
        texts[f"{name}.md"] = render(layout, name, context)
    # All or none: a broken template leaves the earlier companions as they were.
    for name, text in texts.items():
        write_text(layout.companions / name, text)


def render(layout: Layout, name: str, context: Context) -> str:
    """Fill ``paper/templates/<name>.md.j2``; raises ``StudyError`` for a number typed there."""
    path = layout.paper / "templates" / f"{name}.md.j2"
    try:
        template = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}).") from error
    require_no_typed_numbers(template, str(path))
    # Markdown, not HTML: a label such as "A & B" stays as it is.
    environment = Environment(
        autoescape=False, trim_blocks=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters |= FILTERS
    environment.globals["one"] = 1  # what a plural is more than
    try:
        return environment.from_string(template).render(context)
    except TemplateError as error:
        raise StudyError(f"{path}: {error.message}.") from error


def card_context(facts: Facts, layout: Layout) -> Context:
    """What the model card and the datasheet may say, from the records alone."""
    study = facts.study
    audit, results = audit_records(study, layout)
    record, unit = facts.metrics[study.reference], unit_of(facts.manifest)
    groups = {(g["split"], g["class"]): g for g in facts.mask_quality["groups"]}
    trained = [facts.runs[v, seed] for v in study.trained_variants() for seed in study.seeds]
    names = NAMES | {"f1": "F1"}
    return {
        "version": __version__,
        "reference": study.variants[study.reference],
        "recipe": study.recipe(study.reference),
        "run": facts.runs[study.reference, study.seeds[0]],
        "record": record,
        "source": SOURCES[study.data.source],
        "unit": unit,
        "covers": f"{unit}s and seeds" if len(study.seeds) > 1 else f"{unit}s",
        "manifest_sha256": file_sha256(layout.manifest),
        "headline": [
            {"name": names[m], "mean": record["headline"][m], "ensemble": record["ensemble"][m]}
            for m in METRICS
        ],
        "comparisons": [
            found | {"label": study.variants[v].label, "auc": facts.metrics[v]["headline"]["auc"]}
            for v, found in facts.differences.items()
        ],
        "splits": _splits(facts.manifest, audit),
        "total": {"images": len(facts.manifest), "patients": facts.manifest.patient.nunique()},
        "sizes": {
            column: _range(facts.manifest[column]) for column in ("width", "height", "bytes")
        },
        "noted": int((facts.manifest.note != "").sum()),
        "copies": _copies(audit),
        "audit": audit,
        "validation": results["validation"],
        "quality": facts.mask_quality,
        "masks": groups["all", "all"],
        "bys": BYS,
        "shortcut_names": SHORTCUT_NAMES,
        "shift_names": SHIFT_NAMES,
        "trained": len(trained),
        "minutes": sum(run["wall_seconds"] for run in trained) / 60,
    }


def _splits(manifest: pd.DataFrame, audit: Context) -> list[Context]:
    shares = {row["split"]: row["prevalence"] for row in audit["balance"]}
    return [
        {
            "split": SPLIT_NAMES[split].lower(),
            "images": len(part),
            "patients": part.patient.nunique(),
            "normal": int((part.label == 0).sum()),
            "pneumonia": int((part.label == 1).sum()),
            "bacteria": int((part.subtype == "bacteria").sum()),
            "virus": int((part.subtype == "virus").sum()),
            "prevalence": shares[split],
        }
        for split, part in ((name, manifest[manifest.split == name]) for name in SPLIT_NAMES)
    ]


def _copies(audit: Context) -> dict[str, int]:
    places = audit["copies"]["places"]
    across = next(place for place in places if place["place"] == "development-test")
    return {
        "identical": sum(place["identical"] for place in places),
        "near": sum(place["near"] for place in places),
        "across": across["identical"] + across["near"],
    }


def _range(values: pd.Series) -> str:
    return f"{values.min():,} to {values.max():,} (median {values.median():,.0f})"


def _p_value(value: float) -> str:
    return "below 0.001" if value < 0.001 else number(value)
