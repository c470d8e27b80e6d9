"""What goes with the paper: checklists, model card and datasheet."""

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError

from hybridlungvit import __version__
from hybridlungvit.companions.checklists import (
    checklist_rows,
    read_checklist,
    require_no_typed_numbers,
)
from hybridlungvit.companions.cite import DATA_LICENCE, LICENCE
from hybridlungvit.config import Study
from hybridlungvit.data.manifest import unit_of
from hybridlungvit.evaluation.metrics import METRICS
from hybridlungvit.io import StudyError, file_sha256, telling, write_text
from hybridlungvit.paper.contents import CHECKLISTS
from hybridlungvit.paper.format import (
    SHORTCUT_NAMES,
    SPLIT_NAMES,
    SUBGROUP_NAMES,
    format_interval,
    heading,
    metric_name,
    number,
    p_value,
    signed,
    source_names,
)
from hybridlungvit.paper.results import StudyResults, read_results
from hybridlungvit.paths import Layout

Context = dict[str, Any]
FILTERS: dict[str, Callable[[Any], str]] = {
    "heading": heading,
    "count": lambda value: f"{value:,}",
    "number": number,
    "tenth": lambda value: number(value, 1),
    "percent": lambda share: f"{100 * share:.3g} %",
    "interval": lambda value: "--" if value is None else format_interval(value),
    "difference": lambda value: format_interval(value, show=signed),
    "p": lambda value: "exploratory" if value is None else p_value(value, "below 0.001"),
    "short": lambda digest: digest[:12] + "-dirty" * digest.endswith("-dirty"),
}


def write_companions(study: Study, layout: Layout) -> None:
    """Write the companions below ``layout.companions``.

    Raises ``StudyError`` for an unanswered item of a checklist, for one that points nowhere, for a
    number typed into a template, and for records that do not belong together.
    """
    synthetic = study.data.source == "phantom"
    shared = {"study": study, "synthetic": synthetic}
    texts = {}
    for name in CHECKLISTS:
        checklist = read_checklist(name, layout)
        rows = checklist_rows(checklist, layout, synthetic, study.data.own_images)
        context = shared | {"name": name, "checklist": checklist, "rows": rows}
        texts[name] = render(layout, "checklist", context)
    context = shared | card_context(read_results(study, layout))
    for name in ("model_card", "datasheet"):
        texts[name] = render(layout, name, context)
    # All or none: a broken template leaves the earlier companions as they were.
    for name, text in texts.items():
        write_text(layout.companions / f"{name}.md", text)


def render(layout: Layout, name: str, context: Context) -> str:
    """Fill ``paper/templates/<name>.md.j2``; raises ``StudyError`` for a number typed there."""
    path = layout.paper / "templates" / f"{name}.md.j2"
    with telling(path, "read"):
        template = path.read_text(encoding="utf-8")
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


def card_context(results: StudyResults) -> Context:
    """What the model card and the datasheet say beside what they take from the results."""
    study, manifest = results.study, results.manifest
    unit = unit_of(manifest)
    groups = results.mask_quality["groups"]
    trained = [results.runs[v, seed] for v in study.trained_variants() for seed in study.seeds]
    return {
        "results": results,
        "version": __version__,
        "licence": LICENCE,
        "data_licence": DATA_LICENCE,
        "reference": study.variants[study.reference],
        "recipe": study.recipe(study.reference),
        "run": results.runs[study.reference, study.seeds[0]],
        "devices": " and ".join(dict.fromkeys(run["device"] for run in trained)),
        "source": source_names(study.data)[0],
        "source_is_own": study.data.own_images,
        "unit": unit,
        "covers": f"{unit}s and seeds" if len(study.seeds) > 1 else f"{unit}s",
        "manifest_sha256": file_sha256(results.layout.manifest),
        "headline": [
            {"name": metric_name(m).strip("$").replace("_", "")}
            | {layer: results.reference[layer][m] for layer in ("headline", "ensemble")}
            for m in METRICS
        ],
        "comparisons": [
            value | {"label": study.variants[v].label, "auc": results.metrics[v]["headline"]["auc"]}
            for v, value in results.differences.items()
        ],
        # The audit's rows by split, with their names and patients.
        "splits": [
            row
            | {
                "split": SPLIT_NAMES[row["split"]].lower(),
                "normal": row["images"] - row["pneumonia"],
                "patients": manifest[manifest.split == row["split"]].patient.nunique(),
            }
            for row in results.audit["balance"]
        ],
        "sizes": {
            column: f"{values.min():,} to {values.max():,} (median {values.median():,.0f})"
            for column, values in manifest[["width", "height", "bytes"]].items()
        },
        "noted": int((manifest.note != "").sum()),
        "masks": next(g for g in groups if g["split"] == g["class"] == "all"),
        "bys": SUBGROUP_NAMES,
        "shortcut_names": SHORTCUT_NAMES,
        "shift_names": results.shift_names,
        "negative": study.data.class_words[0],
        "positive": study.data.class_words[1],
        "trained": len(trained),
        "minutes": sum(run["wall_seconds"] for run in trained) / 60,
    }
