"""The results page: all results of a study in one HTML file that works without a network.

A section is a function marked ``@section`` and the template ``paper/page/<its name>.html``. The
function returns what the template reads, by name; ``data`` among it goes to the browser as JSON,
where the template's own script asks for it. ``page.html`` is the frame, ``page.js`` and
``page.css`` are what sections share. The charts are Vega-Lite's, drawn in the browser.
"""

import base64
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError
from markdown_it import MarkdownIt
from markupsafe import Markup

from hybridlungvit import __version__
from hybridlungvit.companions.cards import FILTERS
from hybridlungvit.companions.cite import citation
from hybridlungvit.config import Study
from hybridlungvit.data.manifest import unit_of
from hybridlungvit.evaluation.bootstrap import PatientClusters
from hybridlungvit.evaluation.metrics import BENEFIT, CALLS, RANKING
from hybridlungvit.evaluation.operating import precision_curves, sweep_thresholds
from hybridlungvit.evaluation.paired import EQUIVALENT, HIGHER, LOWER, POWER, UNDECIDED
from hybridlungvit.evaluation.predictions import scores_on
from hybridlungvit.evaluation.subgroups import RATES
from hybridlungvit.io import Record, StudyError, rounded, write_text
from hybridlungvit.paper.contents import COMPANIONS
from hybridlungvit.paper.figures import GRID, curve_with_band, roc_curves
from hybridlungvit.paper.format import (
    POINT_NAMES,
    SUBGROUP_NAMES,
    format_range,
    heading,
    metric_name,
    short_verdict,
)
from hybridlungvit.paper.page_images import pictures
from hybridlungvit.paper.results import StudyResults, detectable_apart, read_results
from hybridlungvit.paths import Layout

log = logging.getLogger(__name__)
Context = dict[str, Any]
SECTIONS: dict[str, tuple[str, Callable[[StudyResults], Context]]] = {}
"""Title and function of each section, by the name of its template and in the page's order."""
LARGEST = 8_000_000  # bytes, which a phone still opens at once
VEGA_LITE = "6.4"
THRESHOLDS = np.arange(1, 100) / 100
PREVALENCES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BENEFIT_NAMES = {
    "net_benefit": "Net benefit",
    "net_benefit_all": "Net benefit of calling all",
    "net_benefit_over_all": "Net benefit over calling all",
}
VERDICTS = {
    HIGHER: "higher than the reference",
    LOWER: "lower than the reference",
    EQUIVALENT: "equivalent to the reference within the margin",
    UNDECIDED: "undecided: neither told apart from the reference nor shown equivalent to it",
}


def section(title: str) -> Callable[[Callable], Callable]:
    """Mark a function of the results that returns what a section's template reads."""

    def mark(function: Callable) -> Callable:
        SECTIONS[function.__name__] = title, function
        return function

    return mark


def write_page(study: Study, layout: Layout) -> None:
    """Write ``layout.page`` from the results, the companions and, where they are, the images.

    Raises ``StudyError`` for results that do not belong together and for a template that cannot be
    filled; warns of a page that came out larger than ``LARGEST``.
    """
    from vl_convert import javascript_bundle  # takes long to import

    results = read_results(study, layout)
    environment = _environment(layout)
    labels = {name: heading(variant.label) for name, variant in study.variants.items()}
    unit = unit_of(results.manifest)
    covers = f"{unit}s and seeds" if len(study.seeds) > 1 else f"{unit}s"
    environment.globals |= {"study": study, "results": results, "labels": labels}
    environment.globals |= {"unit": unit, "covers": covers}
    everywhere = {
        "labels": labels,
        "reference": study.reference,
        "seeds": study.seeds,
        "words": study.data.class_words,
        "level": results.level,
    }
    sections = []
    try:
        for name, (title, make) in SECTIONS.items():
            context = make(results)
            body = Markup(environment.get_template(f"{name}.html").render(context))
            sections.append({"name": name, "title": title, "body": body, "context": context})
        text = environment.get_template("page.html").render(
            version=__version__,
            sections=sections,
            shared=everywhere,
            style=Markup(environment.loader.get_source(environment, "page.css")[0]),
            script=Markup(environment.loader.get_source(environment, "page.js")[0]),
            vega=Markup(javascript_bundle(vl_version=VEGA_LITE)),
        )
    except TemplateError as error:
        where = getattr(error, "filename", None) or layout.paper / "page"
        raise StudyError(f"{where}: {error.message}.") from error
    write_text(layout.page, text)
    if (size := layout.page.stat().st_size) > LARGEST:
        log.warning("%s: has %s bytes and opens slowly on a phone.", layout.page, f"{size:,}")


def _environment(layout: Layout) -> Environment:
    """What fills the templates: HTML, in which every text of the results is escaped."""
    environment = Environment(
        loader=FileSystemLoader(layout.paper / "page"), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=StrictUndefined,
    )  # fmt: skip
    environment.filters |= FILTERS
    environment.filters |= {"minus": lambda text: text.replace("-", "−"), "verdict": short_verdict}
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    return environment


def packed(values: Any, kind: str) -> str:
    """An array as base64 of its values in the order of C, little-endian: "<f4" or "<f8"."""
    return base64.b64encode(np.asarray(values, kind).tobytes()).decode()


@section("The answer")
def answer(results: StudyResults) -> Context:
    """Verdicts against the reference, in words and as a forest plot, and the AUCs."""
    rows = {
        variant: {"auc": record["headline"]["auc"], "difference": results.differences.get(variant)}
        for variant, record in results.metrics.items()
    }
    detectable = detectable_apart(results)
    by_verdict = {
        words: [v for v, difference in results.differences.items() if difference["verdict"] == key]
        for key, words in VERDICTS.items()
    }
    return {
        "rows": rows,
        "by_verdict": by_verdict,
        "detectable": detectable and format_range(detectable),
        "power": f"{100 * POWER:g} %",
        "data": {"margin": results.study.statistics.margin, "rows": rows},
    }


@section("All metrics")
def metrics(results: StudyResults) -> Context:
    """Every stored metric by variant and layer, with interval and spread over seeds."""
    records = [*_metric_rows(results)]
    layers, names = (list(dict.fromkeys(row[i] for row in records)) for i in (1, 2))
    variants = list(results.study.variants)
    rows = [
        [
            variants.index(variant), layers.index(layer), names.index(metric),
            *(record.get(key) for key in ("estimate", "low", "high", "sd")),
        ]
        for variant, layer, metric, record in records
    ]  # fmt: skip
    shown = [BENEFIT_NAMES.get(n) or metric_name(n).strip("$").replace("_", "") for n in names]
    return {"layers": layers, "names": shown,
            "data": {"layers": layers, "metrics": shown, "rows": rows}}  # fmt: skip


def _metric_rows(results: StudyResults) -> Iterator[tuple[str, str, str, Record]]:
    """Variant, layer, metric and its record, from all that the metrics and the audit hold."""
    for variant, record in results.metrics.items():
        singles = {f"Test, seed {seed}": values for seed, values in record["seeds"].items()}
        layers = {"Test, mean over seeds": record["headline"]}
        for layer, values in (layers | {"Test, ensemble": record["ensemble"]} | singles).items():
            yield from ((variant, layer, name, values[name]) for name in (*RANKING, *CALLS))
        for point, values in record["points"].items():
            layer = f"Test, {POINT_NAMES[point].lower()} threshold"
            yield from ((variant, layer, name, values[name]) for name in (*CALLS, *BENEFIT))
        for state in ("before", "after"):
            values = record["calibration"][state]["headline"]
            layer = f"Test, {state} temperature scaling"
            yield from ((variant, layer, name, values[name]) for name in values)
        for values in record["subgroups"]:
            layer = f"{SUBGROUP_NAMES[values['by']]}: {values['group']}"
            yield from ((variant, layer, name, values[name]) for name in ("auc", *RATES))
    audited = {
        "validation": "Validation images",
        "without_shared_numbers": "Test, patient number not in training",
    }
    for key, layer in audited.items():
        if (auc := results.audit_results[key]["auc"]) is not None:
            yield results.study.reference, layer, "auc", auc


@section("Threshold and prevalence")
def thresholds(results: StudyResults) -> Context:
    """What another threshold or prevalence would do, computed beforehand at every step."""
    study, swept = results.study, {}
    prevalences = sorted({*PREVALENCES, *study.statistics.prevalences})
    for variant in study.variants:
        table, scores = scores_on(study, variant, results.layout)
        clusters = PatientClusters.of(table.label.to_numpy(), table.patient.to_numpy())
        steps = sweep_thresholds(clusters, scores, THRESHOLDS, prevalences, study.statistics)
        swept[variant] = [packed(part, "<f4") for part in steps]
    data = {
        "swept": swept,
        "thresholds": THRESHOLDS.tolist(),
        "prevalences": prevalences,
        "fixed": {v: study.recipe(v).evaluation.threshold for v in study.variants},
        "normal": int((table.label == 0).sum()),
        "pneumonia": int((table.label == 1).sum()),
    }
    return {"data": data}


@section("Curves")
def curves(results: StudyResults) -> Context:
    """ROC, precision and recall, reliability and training curves."""
    study = results.study
    drawn: dict[str, dict[str, Any]] = {"roc": {}, "precision": {}}
    for variant in study.variants:
        for name, curve in (("roc", roc_curves), ("precision", precision_curves)):
            mean, band = curve_with_band(results, variant, curve)
            drawn[name][variant] = np.round([mean, *band], 4).tolist()
    reliability = {
        variant: {
            state: [
                [rounded(b[key]) for key in ("predicted", "estimate", "low", "high")]
                for b in record["calibration"][state]["bins"] if b["estimate"] is not None
            ]
            for state in ("before", "after")
        }
        for variant, record in results.metrics.items()
    }  # fmt: skip
    training = [
        [variant, seed, int(row.epoch), *(round(float(v), 5) for v in row[-2:])]
        for (variant, seed), history in results.histories.items()
        if variant in study.trained_variants()
        for row in history[["epoch", "classification", "val_auc"]].itertuples(index=False)
    ]
    data = {"grid": GRID.tolist(), **drawn, "reliability": reliability, "training": training}
    labels = scores_on(study, study.reference, results.layout)[0].label
    return {"data": data | {"prevalence": round(float(labels.mean()), 6)}}


@section("Images and errors")
def images(results: StudyResults) -> Context:
    """The probability of every test image by variant and seed, and pictures where there are any."""
    study = results.study
    scores = {variant: scores_on(study, variant, results.layout) for variant in study.variants}
    table, _ = scores[study.reference]
    data = {
        "paths": table.path.tolist(),
        "patients": table.patient.tolist(),
        "labels": table.label.tolist(),
        "subtypes": table.subtype.tolist(),
        "probabilities": {v: packed(rows, "<f8") for v, (_, rows) in scores.items()},
        "thresholds": {v: study.recipe(v).evaluation.threshold for v in study.variants},
        **pictures(study, results.layout, table.path.tolist()),
    }
    return {"data": data}


@section("Cards and checklists")
def companions(results: StudyResults) -> Context:
    """What goes with the paper, from its Markdown."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    documents = []
    for name in (*COMPANIONS[2:], *COMPANIONS[:2]):
        path = results.layout.companions / name
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise StudyError(f"{path}: cannot be read ({error.strerror}). Run `text`.") from error
        title, _, body = text.partition("\n")
        tokens = reader.parse(body)
        for token in tokens:  # below the headings of the page
            if token.type.startswith("heading"):
                token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
        html = reader.renderer.render(tokens, reader.options, {})
        html = re.sub(r"<table>.*?</table>", r'<div class="wide" tabindex="0">\g<0></div>', html,
                      flags=re.DOTALL)  # fmt: skip
        documents.append((title.lstrip("# "), Markup(html.replace("<th></th>", "<td></td>"))))
    return {"documents": documents}


@section("Cite")
def cite(results: StudyResults) -> Context:
    """The sentence to paste for every variant, and the BibTeX."""
    study, texts = results.study, {}
    for variant in study.variants:
        texts[variant], _, bibtex = citation(study, variant, results.layout).partition("\n\n")
    return {"bibtex": bibtex, "data": texts}


@section("Runs behind the numbers")
def runs(results: StudyResults) -> Context:
    """Config, code, commit, weights and machine of every run."""
    rows = [
        {"variant": variant, "seed": seed, "run": run, "scored": results.predictions[variant, seed]}
        for (variant, seed), run in results.runs.items()
    ]
    return {"rows": rows}
