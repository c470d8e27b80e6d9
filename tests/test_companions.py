"""Checklists that must be answered, texts without a typed number, and all metrics as JSON."""

import json
from types import SimpleNamespace

import jsonschema
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY
from test_statistics import binormal, write_images, write_predictions

from hybridlungvit.configfile import study_from
from hybridlungvit.errors import StudyError
from hybridlungvit.evaluation.comparisons import compare_variants
from hybridlungvit.evaluation.evaluate import evaluate_variant
from hybridlungvit.evaluation.metrics import CALLS, METRICS
from hybridlungvit.files import file_sha256, read_json, write_text
from hybridlungvit.paths import Layout
from hybridlungvit.reporting.all_metrics import (
    AllMetrics,
    all_metrics,
    metrics_schema_text,
    metrics_text,
)
from hybridlungvit.reporting.checklists import ITEMS, checklist_rows, read_checklist
from hybridlungvit.reporting.companions import render
from hybridlungvit.reporting.contents import CHECKLISTS, COMPANIONS
from hybridlungvit.reporting.typed_numbers import typed_numbers

SCHEMA = REPOSITORY / "config" / "metrics.schema.json"


# Checklists


@pytest.fixture
def paper(tmp_path):
    """A manuscript of one section, and a checklist that is answered in full."""
    layout = Layout("tiny", results=tmp_path / "results", paper=tmp_path / "paper")
    write_text(layout.paper / "sections" / "data.tex", "\\section{Data}\n\\label{sec:data}\n")
    write_text(layout.paper / "references.bib", "@article{somebody2024,\n}\n")
    write_text(tmp_path / "LICENSE", "")
    write_text(tmp_path / "results" / "tiny" / "audit.json", "{}")
    item = {"topic": "data", "answer": "They are named.", "where": ["sec:data", "LICENSE"]}
    items = {number: dict(item) for number in ITEMS["claim2024"]}
    items["7"]["where"] = ["results/{study}/audit.json"]
    items["34"] = {"topic": "trial", "not_applicable": "It is none."}
    return layout, {"title": "CLAIM", "cite": "somebody2024", "items": items}


def save(layout, checklist):
    text = yaml.safe_dump(checklist, sort_keys=False)
    write_text(layout.paper / "checklists" / "claim2024.yaml", text)


def test_an_answered_checklist_is_printed_item_by_item(paper):
    layout, checklist = paper
    checklist["items"]["1"]["phantom"] = "They are drawn."
    save(layout, checklist)
    rows = checklist_rows(read_checklist("claim2024", layout), layout, synthetic=False)
    assert [row["number"] for row in rows] == ITEMS["claim2024"]
    assert rows[0]["answer"] == "They are named."
    assert rows[0]["places"] == ["sec:data", "`LICENSE`"]
    assert rows[6]["places"] == ["`results/tiny/audit.json`"]
    assert rows[33]["answer"] == "Not applicable: It is none."
    synthetic = checklist_rows(read_checklist("claim2024", layout), layout, synthetic=True)
    assert [row["answer"] for row in synthetic[:2]] == ["They are drawn.", "They are named."]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer": None}, "items.5: unanswered: give `answer`"),
        ({"not_applicable": "Both."}, "items.5: unanswered: give `answer`"),
        ({"where": []}, "items.5: its answer points nowhere"),
        ({"where": ["sec:nowhere"]}, "items.5: no label 'sec:nowhere'"),
        ({"where": ["sec:data", "fig:none"]}, "items.5: no label 'fig:none'"),
        ({"where": ["COPYING"]}, "items.5: no file 'COPYING'"),
        ({"where": ["results/{study}/gone.json"]}, "items.5: no file 'results/tiny/gone.json'"),
        ({"answer": "We used 624 images."}, "items.5: the number '624' is typed"),
        ({"phantom": "An AUC of 0.95."}, r"items.5: the number '0.95' is typed"),
        ({"awnser": "They are."}, "items.5.awnser: Extra inputs"),
    ],
)
def test_a_bad_answer_names_its_item(paper, change, words):
    layout, checklist = paper
    checklist["items"]["5"] |= change
    save(layout, checklist)
    with pytest.raises(StudyError, match=rf"claim2024.yaml: {words}"):
        read_checklist("claim2024", layout)


def test_missing_unknown_and_uncited_are_errors(paper):
    layout, checklist = paper
    save(layout, checklist | {"cite": "nobody1999"})
    with pytest.raises(StudyError, match="cite 'nobody1999' is no entry"):
        read_checklist("claim2024", layout)
    items = dict(checklist["items"])
    del items["17"]
    save(layout, checklist | {"items": items})
    with pytest.raises(StudyError, match=r"items.17: unanswered: the item is missing"):
        read_checklist("claim2024", layout)
    save(layout, checklist | {"items": checklist["items"] | {"45": checklist["items"]["1"]}})
    with pytest.raises(StudyError, match=r"items.45: the checklist has no such item"):
        read_checklist("claim2024", layout)


def test_the_number_of_items_is_that_of_the_articles():
    assert len(ITEMS["claim2024"]) == 44
    assert len(ITEMS["tripod_ai"]) == 52  # 27 with their parts
    assert {"1", "3c", "12g", "18f", "27c"} <= set(ITEMS["tripod_ai"])
    assert set(ITEMS) == set(CHECKLISTS)


@pytest.mark.parametrize("name", CHECKLISTS)
def test_the_papers_own_checklists_are_answered(name, tmp_path, monkeypatch):
    """Against the real manuscript; results are those that a finished study has."""
    for file in ("manifest.csv", "audit.json"):
        write_text(tmp_path / "results" / "tiny" / file, "")
    for entry in REPOSITORY.iterdir():
        if entry.name != "results":
            (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    checklist = read_checklist(name, Layout("tiny"))
    assert list(checklist.items) == ITEMS[name]


# Typed numbers


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("An AUC of 0.95 on {{ n }} images", ["0.95"]),
        ("624 images", ["624"]),
        ("{{ value | round(3) }}", ["3"]),
        ("{{ 0.95 }}", ["0.95"]),
        ("{{ '96 %' }}", ["96"]),
        ("{% if n > 1 %}s{% endif %}", ["1"]),
        ("F1 and {{ n }} of {{ m }} patients", []),
        ("{# a comment with 3 #}{% if true %}yes{% endif %}", []),
    ],
)
def test_typed_numbers_are_found(template, expected):
    assert typed_numbers(template) == expected


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("an AUC of 0.95", "the number '0.95' is typed"),
        ("{{ nothing }}", "'nothing' is undefined"),
        ("{% if %}", "line 1: Expected an expression"),
    ],
)
def test_a_bad_template_is_named(tmp_path, template, words):
    layout = Layout("tiny", paper=tmp_path)
    write_text(tmp_path / "templates" / "model_card.md.j2", template)
    with pytest.raises(StudyError, match=rf"model_card.md.j2: .*{words}"):
        render(layout, "model_card", {})


def test_a_missing_template_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"datasheet.md.j2: cannot be read"):
        render(Layout("tiny", paper=tmp_path), "datasheet", {})


@pytest.mark.parametrize("path", sorted((REPOSITORY / "paper" / "templates").iterdir()))
def test_no_template_of_the_paper_has_a_typed_number(path):
    assert typed_numbers(path.read_text()) == []


# All metrics


def evaluated(study, layout):
    """Facts over metrics that the stages themselves computed."""
    _, scores, _ = binormal(0, 20, between=0.7)
    noise = np.random.default_rng(0).normal(0, 0.1, (len(study.variants), len(study.seeds), 60))
    for variant, rows in zip(study.variants, noise, strict=True):
        for seed, row in zip(study.seeds, rows, strict=True):
            probability = 1 / (1 + np.exp(0.7 - scores + row))
            write_predictions(study, variant, seed, layout, probability)
    write_images(layout)
    metrics = {variant: evaluate_variant(study, variant, layout) for variant in study.variants}
    pairs = [(variant, seed) for variant in study.variants for seed in study.seeds]
    run = {f"{key}_sha256": "a" * 64 for key in ("manifest", "code", "model")}
    run |= {"code_commit": "unknown", "weights_sha256": None}
    return SimpleNamespace(
        study=study,
        manifest=pd.read_csv(layout.manifest, dtype={"patient": str}),
        metrics=metrics,
        differences=compare_variants(study, layout)["differences"],
        runs=dict.fromkeys(pairs, run),
        predictions={
            pair: read_json(layout.predictions(*pair).with_suffix(".json")) for pair in pairs
        },
    )


@pytest.fixture(scope="module")
def gathered(study, tmp_path_factory):
    layout = Layout("tiny", results=tmp_path_factory.mktemp("metrics"))
    facts = evaluated(study, layout)
    return facts, layout, all_metrics(facts, layout)


def count(value):
    """Objects with an estimate and two limits, by another way than the module's."""
    if isinstance(value, list):
        return sum(map(count, value))
    if not isinstance(value, dict):
        return 0
    return 1 if {"estimate", "low", "high"} <= value.keys() else sum(map(count, value.values()))


def test_every_interval_of_the_metrics_files_is_there_once(gathered):
    facts, layout, found = gathered
    for variant in facts.study.variants:
        values = [value for value in found.values if value.variant == variant]
        assert len(values) == count(json.loads(layout.metrics(variant).read_text()))
        names = {(value.layer, value.seed, value.metric) for value in values}
        assert len(names) == len(values)
        for metric in METRICS:
            assert ("mean of seeds", None, metric) in names
            assert {("seed", seed, metric) for seed in facts.study.seeds} <= names
            assert ("ensemble", None, metric) in names
        for metric in CALLS:
            assert ("mean of seeds", None, f"points/youden/{metric}") in names


@pytest.mark.parametrize(
    ("layer", "seed", "metric", "covers", "path"),
    [
        ("mean of seeds", None, "auc", "patients and seeds", ("headline", "auc")),
        ("seed", 1, "auc", "patients", ("seeds", "1", "auc")),
        ("seed", 1, "wilson/sensitivity", "images", ("seeds", "1", "wilson", "sensitivity")),
        ("ensemble", None, "delong", "patients", ("ensemble", "delong")),
        ("ensemble", None, "delong_images", "images", ("ensemble", "delong_images")),
        ("ensemble", None, "calibration/after/ece", "patients",
         ("calibration", "after", "ensemble", "ece")),
        ("mean of seeds", None, "calibration/before/slope", "patients and seeds",
         ("calibration", "before", "headline", "slope")),
        ("mean of seeds", None, "subgroups/subtype=Viral/auc", "patients and seeds",
         ("subgroups", 1, "auc")),
        ("mean of seeds", None, "points/fixed/prevalences/0.05/ppv", "patients and seeds",
         ("points", "fixed", "prevalences", 0, "ppv")),
    ],
)  # fmt: skip
def test_a_value_is_that_of_the_record(gathered, layer, seed, metric, covers, path):
    facts, _, found = gathered
    record = facts.metrics["no_seg"]
    for key in path:
        record = record[key]
    chosen = [
        value
        for value in found.values
        if (value.variant, value.layer, value.seed, value.metric) == ("no_seg", layer, seed, metric)
    ]
    assert len(chosen) == 1
    assert chosen[0].covers == covers
    assert [chosen[0].estimate, chosen[0].low, chosen[0].high] == [
        record[key] for key in ("estimate", "low", "high")
    ]


def test_comparisons_and_origins_are_complete(gathered):
    facts, layout, found = gathered
    assert [one.variant for one in found.comparisons] == list(facts.study.variants)[1:]
    for one in found.comparisons:
        assert one.p_value == facts.differences[one.variant]["p_value"]
        assert one.covers == "patients and seeds"
    assert len(found.origins) == len(facts.study.variants) * len(facts.study.seeds)
    shared = next(o for o in found.origins if o.variant == "no_tta")
    assert shared.trained_as == "no_seg"
    table = layout.predictions("no_tta", shared.seed)
    assert shared.predictions_sha256 == file_sha256(table)
    assert found.metrics_sha256["no_tta"] == file_sha256(layout.metrics("no_tta"))


def test_a_single_seed_covers_patients_alone(tiny, tmp_path):
    study = study_from(tiny | {"seeds": [0]}, "x")
    layout = Layout("tiny", results=tmp_path)
    found = all_metrics(evaluated(study, layout), layout)
    assert {value.covers for value in found.values} == {"patients", "images"}
    assert {one.covers for one in found.comparisons} == {"patients"}


def test_the_file_passes_the_committed_schema_which_is_the_generated_one(gathered):
    assert SCHEMA.read_text() == metrics_schema_text()
    text = metrics_text(gathered[2])
    schema = json.loads(SCHEMA.read_text())
    jsonschema.validate(json.loads(text), schema)
    assert AllMetrics.model_validate_json(text) == gathered[2]
    assert len(text.splitlines()) < len(gathered[2].values) + 60  # one value a line
    broken = json.loads(text)
    broken["values"][0]["covers"] = "everything"
    with pytest.raises(jsonschema.ValidationError, match="everything"):
        jsonschema.validate(broken, schema)


def test_every_companion_has_a_template_or_a_schema():
    templates = {path.name for path in (REPOSITORY / "paper" / "templates").iterdir()}
    needed = {
        "checklist.md.j2" if name.removesuffix(".md") in CHECKLISTS else f"{name}.j2"
        for name in COMPANIONS
        if name.endswith(".md")
    }
    assert templates == needed
