"""The lists of packages agree: pyproject, pinned requirements and conda environments."""

import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

# The same software under conda-forge's names.
CONDA_NAMES = {
    "torch": "pytorch",
    "opencv-python-headless": "opencv",
    "matplotlib": "matplotlib-base",
}
ENVIRONMENTS = ("train", "analysis", "tex")


def pinned():
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {name.lower().replace("_", "-"): version for name, version in pairs}


def conda(path):
    entries = yaml.safe_load((REPOSITORY / path).read_text())["dependencies"]
    assert all(isinstance(entry, str) for entry in entries), "no pip section"
    parsed = {}
    for entry in entries:
        name, _, versions = entry.partition(" ")
        assert re.fullmatch(r"[a-z0-9_.-]+", name)
        parsed[name] = SpecifierSet(versions)
    return parsed


def declared():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [
        Requirement(text)
        for text in (*project["dependencies"], *extras["slurm"], *extras["kubernetes"])
    ]


def test_pinned_versions_satisfy_pyproject():
    versions = pinned()
    for requirement in declared():
        assert versions[requirement.name.lower()] in requirement.specifier, requirement


def test_conda_ranges_contain_the_pinned_versions():
    environment, versions = conda("environment.yml"), pinned()
    for requirement in declared():
        name = CONDA_NAMES.get(requirement.name, requirement.name)
        assert versions[requirement.name.lower()] in environment[name], name


def test_conda_lower_bounds_are_pyprojects():
    environment = conda("environment.yml")
    for requirement in declared():
        name = CONDA_NAMES.get(requirement.name, requirement.name)
        bounds = {str(s) for s in requirement.specifier if s.operator == ">="}
        assert bounds <= {str(s) for s in environment[name]}, name


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_rule_environments_are_subsets(name):
    everything = conda("environment.yml")
    for package, versions in conda(f"workflow/envs/{name}.yaml").items():
        assert everything[package] == versions


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_channels_leave_the_defaults_out(name):
    for path in ("environment.yml", f"workflow/envs/{name}.yaml"):
        channels = yaml.safe_load((REPOSITORY / path).read_text())["channels"]
        assert channels[0] == "conda-forge"
        assert channels[-1] == "nodefaults"


BLOCKER = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import {modules}
"""
MODEL_PACKAGES = {"torch", "torchvision", "timm", "cv2", "safetensors", "pytorch_grad_cam"}
NUMBER_PACKAGES = {"numpy", "pandas", "scipy", "sklearn", "matplotlib", "seaborn"}


@pytest.mark.parametrize(
    ("absent", "modules"),
    [
        (
            MODEL_PACKAGES,
            "hybridlungvit.evaluation.metrics, hybridlungvit.reporting.macros, "
            "hybridlungvit.reporting.tables, hybridlungvit.reporting.figures, "
            "hybridlungvit.reporting.audit_report, hybridlungvit.audit.results",
        ),
        (MODEL_PACKAGES | NUMBER_PACKAGES, "hybridlungvit.reporting.pdf, hybridlungvit.cli"),
    ],
)
def test_rules_import_no_more_than_their_environment_has(absent, modules):
    code = BLOCKER.format(absent=absent, modules=modules)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
