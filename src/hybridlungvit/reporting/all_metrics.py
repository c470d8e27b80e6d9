"""Every metric of a study in one JSON file: estimate, interval, what that covers, and origin.

``config/metrics.schema.json`` is generated from the models below; the file is valid by it.
"""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from hybridlungvit.configtypes import Count, Fraction, Name, Positive, Section
from hybridlungvit.data.manifest import unit_of
from hybridlungvit.files import file_sha256
from hybridlungvit.paths import Layout
from hybridlungvit.reporting.facts import Facts
from hybridlungvit.reporting.trail import study_sha256

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Covers = Literal["patients and seeds", "patients", "images and seeds", "images"]
LAYERS = {"seeds": "seed", "ensemble": "ensemble"}
CLOSED_BY_IMAGE = ("wilson", "delong_images")
"""Closed forms that take images for independent."""


class Value(Section):
    """A metric of one variant on the test set."""

    variant: Name
    layer: Literal["mean of seeds", "seed", "ensemble"]
    """The mean over training seeds, one seed, or the mean of all seeds' probabilities."""
    seed: Count | None
    """The seed, where the layer is one; else null."""
    metric: str
    """Where it stands in the variant's record, its layer left out: ``points/youden/ppv``."""
    estimate: float | None
    """Null where the metric is undefined."""
    low: float | None
    high: float | None
    covers: Covers
    """What the interval accounts for; all else is held fixed."""


class Difference(Section):
    """AUC of a variant minus that of the reference, paired, mean over seeds."""

    variant: Name
    reference: Name
    estimate: float
    low: float
    high: float
    covers: Covers
    p_value: Fraction
    p_adjusted: Fraction | None
    """By Holm's method; null outside the declared family, where a comparison is exploratory."""
    verdict: Literal["higher than", "lower than", "not distinguishable from"]


class Origin(Section):
    """The hashes behind the predictions of one variant and seed."""

    variant: Name
    seed: Count
    trained_as: Name
    """The variant whose checkpoint it is."""
    config_sha256: Sha256
    """Of the config values behind the predictions."""
    manifest_sha256: Sha256
    code_sha256: Sha256
    """Of the code of the training."""
    code_commit: str
    weights_sha256: Sha256 | None
    """Of the pretrained weights: the file, or timm's as loaded; null for random ones."""
    model_sha256: Sha256
    predictions_sha256: Sha256


class AllMetrics(Section):
    study: Name
    title: str
    synthetic: bool
    """Whether the images are phantoms, so that no value says anything about a patient."""
    reference: Name
    seeds: list[Count]
    unit: Literal["patient", "image"]
    """What is resampled."""
    test_images: Positive
    test_patients: Positive
    level: Fraction
    resamples: Positive
    config_sha256: Sha256
    """Of the whole study."""
    manifest_sha256: Sha256
    metrics_sha256: dict[Name, Sha256]
    """Of each variant's file of metrics, from which the values come."""
    comparisons_sha256: Sha256
    values: list[Value]
    comparisons: list[Difference]
    origins: list[Origin]


def all_metrics(facts: Facts, layout: Layout) -> AllMetrics:
    """Gather what the result files say; computes nothing new."""
    study, record = facts.study, facts.metrics[facts.study.reference]
    unit = unit_of(facts.manifest)
    return AllMetrics(
        study=study.study,
        title=study.title,
        synthetic=study.data.source == "phantom",
        reference=study.reference,
        seeds=list(study.seeds),
        unit=unit,
        test_images=record["images"],
        test_patients=record["patients"],
        level=record["level"],
        resamples=record["resamples"],
        config_sha256=study_sha256(study),
        manifest_sha256=file_sha256(layout.manifest),
        metrics_sha256={v: file_sha256(layout.metrics(v)) for v in study.variants},
        comparisons_sha256=file_sha256(layout.comparisons),
        values=[value for v in study.variants for value in _values(facts, v, unit)],
        comparisons=[_difference(facts, v, unit) for v in facts.differences],
        origins=[_origin(facts, *pair) for pair in facts.predictions],
    )


def intervals_in(record: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every object with estimate and interval inside a record of metrics, with its path."""
    if isinstance(record, dict):
        if {"estimate", "low", "high"} <= set(record):
            yield path, record
            return
        for key, value in record.items():
            yield from intervals_in(value, (*path, key))
    elif isinstance(record, list):
        for place, value in enumerate(record):
            yield from intervals_in(value, (*path, _name(value, place)))


def _name(entry: Any, place: int) -> str:
    """What a list's entry is called: its prevalence, its subgroup, or else its number."""
    if "prevalence" in entry and not isinstance(entry["prevalence"], dict):
        return f"{entry['prevalence']:g}"
    return f"{entry['by']}={entry['group']}" if "group" in entry else str(place)


def _values(facts: Facts, variant: str, unit: str) -> Iterator[Value]:
    several = len(facts.study.seeds) > 1
    for path, found in intervals_in(facts.metrics[variant]):
        layer = next((LAYERS[part] for part in path if part in LAYERS), "mean of seeds")
        skipped = {"headline", "ensemble"} | ({"seeds", path[1]} if layer == "seed" else set())
        covers = f"{unit}s"
        if layer == "mean of seeds" and several:
            covers = f"{unit}s and seeds"
        if any(part in CLOSED_BY_IMAGE for part in path):
            covers = "images"
        yield Value(
            variant=variant,
            layer=layer,
            seed=int(path[1]) if layer == "seed" else None,
            metric="/".join(part for part in path if part not in skipped),
            covers=covers,
            **{key: found[key] for key in ("estimate", "low", "high")},
        )


def _difference(facts: Facts, variant: str, unit: str) -> Difference:
    found = facts.differences[variant]
    keys = ("estimate", "low", "high", "p_value", "p_adjusted", "verdict")
    return Difference(
        variant=variant,
        reference=facts.study.reference,
        covers=f"{unit}s and seeds" if len(facts.study.seeds) > 1 else f"{unit}s",
        **{key: found[key] for key in keys},
    )


def _origin(facts: Facts, variant: str, seed: int) -> Origin:
    run, record = facts.runs[variant, seed], facts.predictions[variant, seed]
    keys = ("manifest_sha256", "code_sha256", "code_commit", "weights_sha256", "model_sha256")
    return Origin(
        variant=variant,
        seed=seed,
        trained_as=facts.study.trained_as(variant),
        config_sha256=record["config_sha256"],
        predictions_sha256=record["predictions_sha256"],
        **{key: run[key] for key in keys},
    )


def metrics_text(metrics: AllMetrics) -> str:
    """The file's text: one value, comparison or origin a line, so that two files compare well."""
    parts = []
    for key, value in metrics.model_dump(mode="json").items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines = ",\n".join(f"    {json.dumps(entry, ensure_ascii=False)}" for entry in value)
            text = f"[\n{lines}\n  ]"
        parts.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def metrics_schema_text() -> str:
    """The schema as committed in ``config/metrics.schema.json``."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(schema | AllMetrics.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
