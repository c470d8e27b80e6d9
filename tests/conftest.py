"""A tiny phantom study, generated once a session, for every test that needs images."""

import copy
import gc
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace as altered
from pathlib import Path
from typing import Any

import cv2
import hypothesis
import pandas as pd
import pytest
import yaml
from filelock import FileLock

from hybridlungvit.config import Study, load_study, study_from
from hybridlungvit.data.cache import Cache, build_cache, open_cache
from hybridlungvit.data.manifest import build_manifest, read_manifest
from hybridlungvit.io import write_text
from hybridlungvit.masks.quality import write_quality
from hybridlungvit.paths import Layout
from hybridlungvit.phantom import write_dataset

# The cache forks its workers, and a fork of OpenCV's thread pool never wakes up.
cv2.setNumThreads(1)

# Whether a test passes must not depend on the speed of the machine or on what else it does.
hypothesis.settings.register_profile(
    "suite",
    max_examples=60,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    print_blob=True,
)
hypothesis.settings.load_profile("suite")

REPOSITORY = Path(__file__).parents[1]
SOURCES = (
    "Snakefile", "profiles", "workflow", "src", "config", "paper", "benchmarks",
    "README.md", "CONTRIBUTING.md", "LICENSE", "requirements.txt",  # checklists point to them
)  # fmt: skip
TINY: dict[str, Any] = {
    "study": "tiny",
    "title": "Tiny",
    "seeds": [0, 1],
    "reference": "no_seg",
    "data": {
        "source": "phantom",
        "image_size": 32,
        "validation_folds": 3,
        "phantom": {"train_images": 60, "test_images": 30, "contrast": 2.0, "median_width": 96},
    },
    "model": {
        "stem": "deit_tiny_patch16_224",
        "pretrained": False,
        "stem_options": {"depth": 1, "patch_size": 8, "drop_path_rate": 0.1},
        "d_model": 16,
        "token_grid": 2,
        "map_size": 8,
        "encoder_layers": 1,
        "heads": 2,
    },
    "training": {"epochs": 3, "batch_size": 16, "learning_rate": 1e-3, "freeze_epochs": 1},
    "statistics": {"resamples": 200},
    "explanation": {"subsample": 8, "removed": [0.2, 0.5], "batch_size": 5},
    "compute": {"device": "cpu", "threads": 1, "loader_workers": 0},
    "variants": {
        "no_seg": {"label": "HybridLungViT", "description": "Reference"},
        "seg_0.1": {
            "label": "with segmentation",
            "description": "Segmentation loss",
            "training": {"lambda_seg": 0.1, "lambda_att": 0.1},
        },
        "no_tta": {
            "label": "without TTA",
            "description": "No mirrored image",
            "evaluation": {"tta": False},
        },
        "plain_deit": {
            "label": "plain DeiT",
            "description": "Linear head",
            "model": {"head": "linear"},
        },
    },
}


def benchmark(name):
    """A script of ``benchmarks/`` as a module, under a name that shadows no package."""
    folder = REPOSITORY / "benchmarks"
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # they share one module, report
    path = folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def proc(table, script, folder):
    """The numbers that R's pROC prints, line by line; the table is ``d`` in the script."""
    known = ["Rscript", "-e", 'quit(status = !requireNamespace("pROC", quietly = TRUE))']
    if shutil.which("Rscript") is None or subprocess.run(known, capture_output=True).returncode:
        pytest.skip("needs R with the package pROC: apt-get install r-cran-proc")
    table.to_csv(folder / "data.csv", index=False)
    start = 'suppressMessages(library(pROC)); d <- read.csv("data.csv")'
    command = ["Rscript", "-e", start, "-e", script]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return [[float(word) for word in line.split()] for line in done.stdout.splitlines()]


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def replace(path: Path, old: str, new: str) -> None:
    """Put ``new`` in the place of the first ``old``, which must be there."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def commit(folder: Path, path: str) -> None:
    """Make the folder a git repository in which this path is committed."""
    git = ["git", "-c", "user.name=T", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", path], ["commit", "-qm", "Results"]):
        subprocess.run([*git, *command], cwd=folder, check=True)


def no_space(*arguments: Any, **options: Any) -> None:
    """Stands in for a function that writes, on a full disk."""
    raise OSError(28, "No space left on device")


def no_permission(path: Any, *arguments: Any) -> None:
    """Stands in for a function that opens a file or folder, where the user may not."""
    raise PermissionError(13, "Permission denied", str(path))


def interrupted(*arguments: Any, **options: Any) -> None:
    """Stands in for a function in which somebody presses Ctrl-C."""
    raise KeyboardInterrupt


SMALL = {
    "stem": "deit_tiny_patch16_224",
    "image_size": 32,
    "stem_options": {"depth": 2, "patch_size": 8},
}


def small_hybrid(**changes):
    """A hybrid model of little width, in evaluation mode."""
    from hybridlungvit.model import HybridLungViT

    head = {"d_model": 16, "token_grid": 2, "map_size": 8, "encoder_layers": 1, "heads": 2}
    return HybridLungViT(**SMALL | head | changes).eval()


def small_plain(**changes):
    """The same stem as a plain control."""
    from hybridlungvit.model import PlainViT

    return PlainViT(**SMALL | changes).eval()


@pytest.fixture
def seeded() -> None:
    """One thread, and the same draws in each test of models."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)


def opened(layout: Layout) -> tuple[pd.DataFrame, Cache]:
    """Manifest and cache of a tiny study."""
    manifest = read_manifest(layout.manifest)
    return manifest, open_cache(layout, manifest, 32)


@pytest.fixture
def tiny() -> dict[str, Any]:
    """The tiny study's plain values, to alter freely."""
    return copy.deepcopy(TINY)


@pytest.fixture(scope="session")
def study() -> Study:
    return study_from(TINY, "tiny")


@pytest.fixture(scope="session")
def phantoms(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantoms") / "data"
    write_dataset(root, study.data.phantom, 1)
    return root


@pytest.fixture(scope="session")
def cached(study: Study, phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A layout whose manifest, cache and mask quality exist; tests must not alter them."""
    layout = Layout("tiny", results=tmp_path_factory.mktemp("results"))
    build_manifest(phantoms, study.data, layout.manifest, workers=2)
    build_cache(phantoms, layout, study.data.image_size, workers=2)
    write_quality(phantoms, study, layout)
    return layout


@pytest.fixture
def layout(cached: Layout, tmp_path: Path) -> Layout:
    """A results folder of the test's own, over the shared manifest and cache."""
    own = altered(beside(cached, tmp_path / "results"), paper=tmp_path / "paper")
    own.mask_quality.symlink_to(cached.mask_quality)
    own.paper.mkdir()
    (own.paper / "sections").symlink_to(REPOSITORY / "paper" / "sections")
    return own


def beside(layout: Layout, results: Path) -> Layout:
    """Another results folder over the same manifest and cache."""
    own = altered(layout, results=results)
    own.root.mkdir(parents=True)
    for shared in (layout.manifest, layout.mask_table, layout.images.parent):
        (own.root / shared.name).symlink_to(shared.resolve())
    return own


@pytest.fixture(scope="session")
def trained(cached: Layout, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Layout]:
    """The tiny study with one seed, whose reference was trained for an epoch; do not alter it."""
    from hybridlungvit.training.loop import train

    folder = tmp_path_factory.mktemp("trained")
    values = TINY | {"seeds": [0], "training": TINY["training"] | {"epochs": 1}}
    study = study_from(values, "tiny")
    layout = altered(beside(cached, folder / "results"), paper=folder / "paper")
    train(study, "no_seg", 0, layout)
    write_text(layout.companions / "model_card.md", "The card of the tiny study.\n")
    return study, layout


def adopt(trained: tuple[Study, Layout], layout: Layout) -> Study:
    """Link the trained run into a layout of the test's own; returns its study."""
    study, done = trained
    layout.run("no_seg", 0).parent.mkdir(parents=True)
    layout.run("no_seg", 0).symlink_to(done.run("no_seg", 0))
    return study


@pytest.fixture(scope="session")
def first_export(trained: tuple[Study, Layout], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hybridlungvit.companions.export import export_run
    from hybridlungvit.evaluation.evaluate import evaluate_variant
    from hybridlungvit.evaluation.score import score

    study, layout = trained
    score(study, "no_tta", 0, layout)
    evaluate_variant(study, "no_tta", layout)
    folder = tmp_path_factory.mktemp("export") / "exported"
    export_run(study, "no_tta", 0, layout, folder, half=True)
    return folder


@pytest.fixture
def exported(first_export: Path, tmp_path: Path) -> Path:
    """The trained run as a folder in the layout of the model hub, to break at will."""
    return shutil.copytree(first_export, tmp_path / "exported")


def checkout(folder, origin=REPOSITORY):
    """A copy of the sources without any result, with the tiny study's config."""
    skip = shutil.ignore_patterns("__pycache__", "build", "generated", "*.pdf", "*.egg-info")
    for name in SOURCES:
        source = origin / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=skip)
        else:
            shutil.copy(source, folder / name)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"seeds": [0]}, sort_keys=False))
    return folder


@pytest.fixture(scope="session", autouse=True)
def environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where Snakemake keeps the environments of rules: once for all workflows of the session."""
    folder = tmp_path_factory.mktemp("environments")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNAKEMAKE_CONDA_PREFIX", str(folder))
        yield folder


def snakemake_call(folder: Path, *arguments: str) -> dict[str, Any]:
    """What ``subprocess`` needs for a workflow whose rules get by with their environments.

    ``tests/conda`` stands in for conda. The environment of the tests is taken off the PATH: a rule
    that names no environment finds no package.
    """
    paths = os.environ["PATH"].split(":")
    if sys.prefix != sys.base_prefix:
        paths = [path for path in paths if Path(path) != Path(sys.executable).parent]
    paths.insert(0, str(REPOSITORY / "tests" / "conda" / "bin"))
    return {
        "args": [sys.executable, "-m", "snakemake", "--cores", "2", "--use-conda", *arguments],
        "cwd": folder,
        "env": os.environ | {"PATH": ":".join(paths), "TESTS_PYTHON": sys.executable},
    }


def snakemake(folder, *arguments):
    return subprocess.run(**snakemake_call(folder, *arguments), capture_output=True, text=True)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which the tiny study ran to its checked PDF; tests must not alter it.

    Made once for all processes of pytest-xdist, which share the folder above their own.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, log = base / "finished", base / "finished.log"
    with FileLock(base / "finished.lock"):
        if not log.exists():
            folder.mkdir()
            done = snakemake(checkout(folder), "--configfile", "tiny.yaml")
            log.write_text(f"{done.returncode}\n{done.stdout}{done.stderr}")
    assert log.read_text().startswith("0\n"), log.read_text()
    return folder


@pytest.fixture
def finished_copy(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The finished study without images and weights, in the working folder, to break at will."""
    skip = shutil.ignore_patterns("phantom", "cache", "logs", "*.safetensors", "*.npz")
    shutil.copytree(finished / "results", tmp_path / "results", ignore=skip)
    shutil.copytree(finished / "paper", tmp_path / "paper")
    for name in {*SOURCES, "tiny.yaml"} - {"paper"}:
        source = finished / name
        shutil.copy(source, tmp_path) if source.is_file() else (tmp_path / name).symlink_to(source)
    monkeypatch.chdir(tmp_path)
    return load_study(Path("tiny.yaml"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules first, so that processes end together."""
    gc.freeze()  # statsmodels' multipletests collects garbage, which takes seconds otherwise
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
