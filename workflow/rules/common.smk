# Validation of the study and the helpers that rules share; no rules here.
import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

BASE = Path(workflow.basedir)
# Rules call `python -m hybridlungvit` from this checkout: conda environments need no install step.
# In the commands themselves, as Snakemake takes PYTHONPATH away from jobs with an environment.
SOURCE = str(BASE / "src")
sys.path.insert(0, SOURCE)
PREFIX = f"set -euo pipefail; export PYTHONPATH={shlex.quote(SOURCE)}; "
shell.prefix(PREFIX.replace("{", "{{").replace("}", "}}"))

from hybridlungvit.config import (
    WORKFLOW,
    load_other,
    read_yaml,
    save_resolved,
    study_from,
)
from hybridlungvit.data.sources import image_root
from hybridlungvit.io import StudyError
from hybridlungvit.evaluation.other_study import other_files
from hybridlungvit.explain.cases import focus_variants
from hybridlungvit.io import folder_sha256, value_sha256
from hybridlungvit.paths import Layout
from hybridlungvit.preflight import check_start
from hybridlungvit.provenance import code_sha256
from hybridlungvit.paper.contents import COMPANIONS, FIGURES, GALLERIES, TABLES
from hybridlungvit.seal import check_seal, sealed_files


def load_config():
    try:
        for file in workflow.configfiles:
            read_yaml(Path(file))  # for keys given twice or octal numbers, which Snakemake accepts
        study = study_from(config, WORKFLOW)
        return study, load_other(study), str(save_resolved(study, Layout(study.study)))
    except StudyError as error:
        raise WorkflowError(str(error)) from None


def check_before_start():
    try:
        planned = {job.rule.name for job in workflow.dag.needrun_jobs()}
        # Some rules only: the profile `paper`, for which nothing with images or weights may run.
        from_predictions = bool(workflow.dag_settings.allowed_rules)
        if from_predictions:
            check_seal(study, layout)
        check_start(study, layout, planned, from_predictions)
    except StudyError as error:
        raise WorkflowError(str(error)) from None


study, other, resolved = load_config()
layout = Layout(study.study)
# Jobs read the study from here. It is no input of theirs: each rule names the values it depends on
# as params, so that a changed value reruns just the stages it matters to.
os.environ.update(HYBRIDLUNGVIT_CONFIG=resolved)
base_recipe = study.recipe(study.reference)
compute = study.compute
GPU = 0 if compute.device == "cpu" else 1


wildcard_constraints:
    variant="|".join(v.replace(".", r"\.") for v in study.variants),
    seed="|".join(str(seed) for seed in study.seeds),


def code(entry):
    """Hash of the code behind a sub-command or script: where it changes, the rule runs again."""
    return code_sha256(entry)


def log_file(name):
    return str(layout.root / "logs" / f"{name}.log")


def benchmark_file(name):
    return str(layout.root / "benchmarks" / f"{name}.tsv")


def reported(path, category, caption=None, **labels):
    """An output that `snakemake --report` shows, with its caption beside its name.

    The caption of a table or figure is the docstring of its function; other results have theirs in
    workflow/report/. Figures are embedded as the PDFs of the paper: browsers show them, and a copy in another format
    could differ from what is printed.
    """
    name = caption or Path(path).stem
    labels = labels or {"result": name}
    docstrings = {"tables": TABLES, "figures": FIGURES | GALLERIES}.get(category, {})
    if name in docstrings:
        labels["caption"] = docstrings[name]
    return report(
        str(path),
        caption=None if name in docstrings else f"../report/{category}/{name}.rst",
        category=category.capitalize(),
        labels=labels,
    )


def weights_file(wildcards):
    """The pretrained weights a training reads, when the config names a file."""
    pretrained = study.recipe(wildcards.variant).model.pretrained
    return [pretrained] if isinstance(pretrained, str) else []


def annotations_file():
    """The table of known lungs that the quality control reads, when there is one."""
    if study.data.source == "phantom":
        return layout.phantom / "lungs.csv"
    return study.data.annotations or []


def masks_hash():
    """What the masks of the user's own hold: where a file changes, the cache is built again."""
    folder = study.data.masks
    return folder and folder_sha256(Path(folder))


MASK_BENCHMARK = BASE / "benchmarks" / "masks.py"
DOWNLOADED = study.data_root is None and study.data.source in ("mendeley", "pneumoniamnist")
# The benchmark is of the fitted masks; a study with masks of its own has none.
ANNOTATED = study.data.masks is None and annotations_file() != []


def mask_benchmark_arguments():
    """Where the known lungs are, and which of them played no part in choosing constants."""
    level = study.statistics.level
    if study.data.source == "phantom":
        root, table, half = layout.phantom, layout.phantom / "lungs.csv", "all"
    else:
        root, table, half = image_root(study, layout), study.data.annotations, "reporting"
    return {"data": root, "annotations": table, "half": half, "level": level}


def checkpoint(wildcards):
    """The weights behind a variant: evaluation-only variants share those of their parent."""
    owner = study.trained_as(wildcards.variant)
    return layout.run(owner, wildcards.seed) / "model.safetensors"


def variant_predictions(wildcards):
    return [layout.predictions(wildcards.variant, seed) for seed in study.seeds]


def all_predictions():
    return [layout.predictions(v, seed) for v in study.variants for seed in study.seeds]


def report_inputs():
    """What macros, tables and figures are made from."""
    runs = [
        layout.run(v, seed) / name
        for v in study.trained_variants()
        for seed in study.seeds
        for name in ("run.json", "history.csv")
    ]
    metrics = [layout.metrics(v) for v in study.variants]
    masks = [layout.mask_table, layout.mask_quality]
    maps = [layout.focus(v).with_suffix(".json") for v in focus_variants(study)]
    maps.append(layout.saliency(study.reference))
    audits = [layout.audit, layout.audit_results]
    return [*all_predictions(), *runs, *metrics, layout.comparisons, *masks, *maps, *audits]


def paper_files(*patterns):
    """Hand-written files below paper/, by name or pattern."""
    files = {path for pattern in patterns for path in (BASE / "paper").glob(pattern)}
    return sorted(os.path.relpath(path) for path in files)


def manuscript():
    """The hand-written sources of the paper."""
    return paper_files("*.tex", "*.bib", "sections/*.tex", "figures/*.tex")
