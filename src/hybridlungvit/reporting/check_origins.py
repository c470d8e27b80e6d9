"""Checks of where results come from: predictions, runs, and what was left out."""

from collections.abc import Iterator

from hybridlungvit.config import Study
from hybridlungvit.csvfile import read_table
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.evaluation.predictions import read_predictions
from hybridlungvit.files import file_sha256, read_json, rounded
from hybridlungvit.paths import Layout
from hybridlungvit.reporting.problems import Problem

SHARED = ["patient", "split", "label", "subtype"]


def check_origins(study: Study, layout: Layout) -> Iterator[Problem]:
    """Predictions that manifest and run do not bear out, and seeds that are left out.

    Raises ``StudyError`` when predictions belong to another config or were altered.
    """
    manifest = read_manifest(layout.manifest).set_index("path")
    sha256 = file_sha256(layout.manifest)
    pairs = [(variant, seed) for variant in study.variants for seed in study.seeds]
    for variant, seed in pairs:
        path, folder = (
            layout.predictions(variant, seed),
            layout.run(study.trained_as(variant), seed),
        )
        scored, run = read_json(path.with_suffix(".json")), read_json(folder / "run.json")
        if scored["manifest_sha256"] != sha256 or run["manifest_sha256"] != sha256:
            yield Problem(str(path), f"from another manifest than {layout.manifest}. Score again.")
        if scored["run"] != run or scored["model_sha256"] != run["model_sha256"]:
            yield Problem(str(path), f"scored by another run than {folder / 'run.json'} tells of.")
        table = read_predictions(study, variant, seed, layout).set_index("path")
        own = manifest.reindex(table.index)[SHARED].astype(str)
        used = set(manifest.index[manifest.split != "train"])
        if not own.equals(table[SHARED].astype(str)) or set(table.index) != used:
            yield Problem(
                str(path), f"its images, labels or patients are not those of {layout.manifest}. "
                "Score again.",
            )  # fmt: skip
        history = read_table(folder / "history.csv", ("epoch", "val_auc"))
        best = rounded([history.val_auc.max(), run["best_val_auc"]])
        if len(history) != run["epochs_run"] or best[0] != best[1]:
            yield Problem(str(folder / "history.csv"), "is not the history run.json tells of.")
    reported = {layout.predictions(variant, seed) for variant, seed in pairs}
    for path in sorted({*layout.root.glob("predictions/*/seed-*.csv")} - reported):
        if path.parent.name not in study.omitted:
            yield Problem(str(path), "exists, but the config does not report it. Report it.")
