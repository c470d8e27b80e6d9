# Validation of the study and the helpers that rules share; no rules here.
import atexit
import os
import re
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

from hybridlungvit import __version__
from hybridlungvit.config import read_yaml, save_resolved, say_what_never_acts, study_from
from hybridlungvit.data.sources import image_root
from hybridlungvit.evaluation.predictions import evaluated_from
from hybridlungvit.explain.cases import COMPARED_SEEDS, focus_variants, other_variants
from hybridlungvit.io import StudyError, file_sha256, folder_sha256, value_sha256
from hybridlungvit.paper.contents import COMPANIONS, FIGURES, GALLERIES, TABLES
from hybridlungvit.paths import Layout
from hybridlungvit.preflight import LEAVE_OUT, check_start, no_weights
from hybridlungvit.provenance import code_sha256
from hybridlungvit.seal import check_runs, check_seal, sealed_files


def from_predictions():
    """Some rules only: the profile `paper`, for which nothing with images or weights may run."""
    return bool(workflow.dag_settings.allowed_rules)


def say_last(message):
    """Print a message below everything that Snakemake has to say."""
    atexit.register(print, f"\n{message}", file=sys.stderr)


def stop(error):
    """End the workflow with what is wrong, before it begins."""
    say_last(error)
    raise WorkflowError(str(error)) from None


def say_why(snakemake_logs):
    """Repeat below Snakemake's lines what the failed jobs said: their last error, or last line."""
    said = "".join(Path(path).read_text() for path in snakemake_logs)
    failed = r"^Error in \w+ (\S+):\n(?:    .*\n)*?    log: ([^\s,]+)"
    jobs = dict.fromkeys(re.findall(failed, said, re.M))
    for rule, log in jobs:
        text = Path(log).read_text(errors="replace").strip() if Path(log).is_file() else ""
        last = [line for line in text.splitlines() if " INFO " not in line][-1:]
        message = text.rpartition(" ERROR ")[2] if " ERROR " in text else "".join(last)
        say_last(f"{rule} failed: {message or 'it was stopped without a message'} ({log})")
    if not jobs:  # with --quiet all
        say_last(f"A job failed; the newest file in {layout.root}/logs says why.")


def load_config():
    try:
        for file in workflow.configfiles:
            read_yaml(Path(file))  # for keys given twice or octal numbers, which Snakemake accepts
        study = study_from(config, "config")
        say_what_never_acts(study, "config")
        return study, str(save_resolved(study, Layout(study.study)))
    except StudyError as error:
        stop(error)


def say_what_was_made():
    if any(job.rule.name == "all" for job in workflow.dag.jobs):
        say_last(f"Made: {layout.pdf} and {layout.page}")


def check_before_start():
    try:
        if workflow.touch:  # what is marked as current must be what this code and config would make
            check_seal(study, layout)
            return check_runs(study, layout)
        planned = {job.rule.name for job in workflow.dag.needrun_jobs()}
        if from_predictions():
            check_seal(study, layout)
        check_start(study, layout, planned, from_predictions())
    except StudyError as error:
        stop(error)


study, resolved = load_config()
layout = Layout(study.study)
# Jobs read the study from here. It is no input of theirs: each rule names the values it depends on
# as params, so that a changed value reruns just the stages it matters to.
os.environ.update(HYBRIDLUNGVIT_CONFIG=resolved)
compute = study.compute
GPU = 0 if compute.device == "cpu" else 1
PHANTOM = study.data.source == "phantom"
DOWNLOADED = study.data_root is None and study.data.source in ("mendeley", "pneumoniamnist")
ANNOTATIONS = layout.phantom / "lungs.csv" if PHANTOM else study.data.annotations or []
# The benchmark is of the fitted masks; a study with masks of its own has none.
BENCHMARKED = bool(ANNOTATIONS) and study.data.masks is None
MASK_BENCHMARK = BASE / "benchmarks" / "masks.py"
DATA = value_sha256(study.recipe(study.reference).data_identity())
STATISTICS = value_sha256(study.statistics.model_dump())
# As text, since the order of variants is that of the rows.
STUDY = value_sha256(study.model_dump_json(exclude={"data_root"}))


wildcard_constraints:
    variant="|".join(v.replace(".", r"\.") for v in study.variants),
    seed="|".join(str(seed) for seed in study.seeds),


def rerun_with(command, *values):
    """What starts jobs anew where it changes: the code of a sub-command or script, and values."""
    return code_sha256(command), *values


def log_file(name):
    return str(layout.root / "logs" / f"{name}.log")


def mask_benchmark_arguments(wildcards):
    """Where the known lungs are, and which of them played no part in choosing constants."""
    data = layout.phantom if PHANTOM else image_root(study, layout)
    # Constants were chosen on a half of Kermany's annotations, and on no other images.
    half = "all" if PHANTOM or study.data.own_images else "reporting"
    size = study.statistics.model_dump(include={"resamples", "level", "seed"})
    options = [part for name, value in size.items() for part in (f"--{name}", value)]
    return ["--data", data, "--half", half, "--classes", *study.data.classes, *options]


def predictions(*variants):
    return [layout.predictions(v, seed) for v in variants for seed in study.seeds]


def patients_table(wildcards):
    file = study.data.patients_file
    if file and not Path(file).is_file() and not layout.manifest.is_file():
        stop(StudyError(f"data.patients: no file {file}. {LEAVE_OUT}"))
    return file or []


def pretrained_weights(wildcards):
    """The pretrained weights a training reads, when the config names a file."""
    variant = wildcards.variant
    pretrained = study.recipe(variant).model.pretrained
    if not isinstance(pretrained, str):
        return []
    made = [*weights(variant), *predictions(variant)]
    if not Path(pretrained).is_file() and not any(map(Path.exists, made)):
        stop(no_weights(study, variant))
    return [os.path.normpath(pretrained)]


def content(file):
    """The hash of a user's file: its time may be older than what was made from the one before."""
    return file_sha256(Path(file)) if file and Path(file).is_file() else None


def weights_content(wildcards):
    return [content(file) for file in pretrained_weights(wildcards)]


def stored_features(variant):
    """The features of a frozen stem that a training reads, when the config wants them stored."""
    if not study.recipe(variant).training.frozen_views:
        return []
    return [layout.features(study.features_as(variant)) / "features.json"]


def weights(variant):
    """The trained weights of a variant, of each seed."""
    runs = [layout.run(study.trained_as(variant), seed) for seed in study.seeds]
    return [run / "model.safetensors" for run in runs]


def masks_hash(wildcards):
    """What the masks of the user's own hold: where a file changes, the cache is built again."""
    folder = study.data.masks and Path(study.data.masks)
    return folder_sha256(folder) if folder and folder.is_dir() else None  # preflight asks for it


def report_inputs():
    """What macros, tables and figures are made from."""
    results = [path for path in sealed_files(study, layout) if layout.root in path.parents]
    metrics = [layout.metrics(variant) for variant in study.variants]
    return [*results, *metrics, layout.comparisons, layout.audit_results]


def stored_predictions(wildcards):
    """What must be there where the paper is all that is to be made; Snakemake would list it all."""
    missing = [path for path in predictions(*study.variants) if not path.is_file()]
    if missing and from_predictions():
        advice = "The paper is made from stored predictions: run the study first (`make study`)."
        stop(StudyError(f"{missing[0]}: not found. {advice}"))
    return []


def paper_files(*patterns):
    """Hand-written files below paper/, by name or pattern."""
    files = {path for pattern in patterns for path in (BASE / "paper").glob(pattern)}
    return sorted(os.path.relpath(path) for path in files)


MANUSCRIPT = paper_files("*.tex", "*.bib", "sections/*.tex", "figures/*.tex")
