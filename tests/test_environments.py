"""The lists of packages agree: pyproject, pinned requirements and conda environments."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import hypothesis
import pytest
import yaml
from conftest import REPOSITORY, checkout
from packaging.requirements import Requirement
from rattler import MatchSpec, Version, VersionSpec

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
    """Name and versions of each entry, as conda itself would read them."""
    entries = yaml.safe_load((REPOSITORY / path).read_text())["dependencies"]
    assert all(isinstance(entry, str) for entry in entries), "no pip section"
    specs = [MatchSpec(entry, strict=True) for entry in entries]
    parsed = {spec.name.normalized: VersionSpec(spec.version or "*") for spec in specs}
    assert len(parsed) == len(entries), "a package given twice"
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
        assert environment[name].matches(Version(versions[requirement.name.lower()])), name


def test_conda_lower_bounds_are_pyprojects():
    environment = conda("environment.yml")
    for requirement in declared():
        name = CONDA_NAMES.get(requirement.name, requirement.name)
        (bound,) = (s.version for s in requirement.specifier if s.operator == ">=")
        assert environment[name].matches(Version(bound)), name
        assert not environment[name].matches(Version(f"{bound}a0")), name


def test_a_version_seen_on_the_channel_is_in_each_range():
    environment = conda("environment.yml")
    lines = (REPOSITORY / "environment.yml").read_text().splitlines()
    entry = re.compile(r"  - (\S+).* # (?:libtorch )?([\d.]+)\b.*(?:page|lock file)")
    seen = dict(found.groups() for line in lines if (found := entry.match(line)))
    assert seen.keys() == environment.keys()
    for name, version in seen.items():
        assert environment[name].matches(Version(version)), name


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_rule_environments_are_subsets(name):
    everything = conda("environment.yml")
    for package, versions in conda(f"workflow/envs/{name}.yaml").items():
        assert str(everything[package]) == str(versions)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_channels_leave_the_defaults_out(name):
    for path in ("environment.yml", f"workflow/envs/{name}.yaml"):
        channels = yaml.safe_load((REPOSITORY / path).read_text())["channels"]
        assert channels[0] == "conda-forge"
        assert channels[-1] == "nodefaults"


STAND_IN = """#!/bin/sh
# No conda: answers what planning asks of it, and refuses everything else.
echo "$*" >> "$ASKED"
case "$*" in
"info --json") echo '{"conda_prefix": "/nowhere", "platform": "linux-64"}' ;;
"--version") echo "conda 25.1.0" ;;
"config --get channel_priority --json") echo '{"get": {"channel_priority": "strict"}}' ;;
*) exit 1 ;;
esac
"""


def test_planning_with_conda_asks_for_nothing_but_facts(tmp_path):
    """With a stand-in for conda: says that plans are made, not that environments can be."""
    program = tmp_path / "programs" / "conda"
    program.parent.mkdir()
    program.write_text(STAND_IN)
    program.chmod(0o755)
    (tmp_path / "work").mkdir()
    paths = [str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"PATH": ":".join(paths), "ASKED": str(tmp_path / "asked")}
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "8", "--use-conda"]
    folder = checkout(tmp_path / "work")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^train +30$", done.stdout, re.MULTILINE)
    assert set((tmp_path / "asked").read_text().splitlines()) == {
        "info --json", "--version", "config --get channel_priority --json",
    }  # fmt: skip


BLOCKER = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
{code}
"""
MODULES = {
    "pytorch": "torch", "grad-cam": "pytorch_grad_cam", "opencv": "cv2", "pillow": "PIL",
    "scikit-learn": "sklearn", "pyyaml": "yaml", "matplotlib-base": "matplotlib",
}  # fmt: skip
STYLED = "import pandas; pandas.DataFrame([[1]]).style.to_latex()"  # loads jinja2 when called
RULES = {
    "train": f"""
import hybridlungvit.audit.stage, hybridlungvit.data.cache, hybridlungvit.data.download
import hybridlungvit.data.examples, hybridlungvit.data.manifest, hybridlungvit.data.phantom
import hybridlungvit.evaluation.mask_quality, hybridlungvit.evaluation.predict
import hybridlungvit.explain.focus, hybridlungvit.explain.gradcam, hybridlungvit.explain.saliency
import hybridlungvit.training.loop, hybridlungvit.reporting.mask_report, hybridlungvit.cli
{STYLED}
""",
    "analysis": f"""
import hybridlungvit.audit.results, hybridlungvit.evaluation.comparisons
import hybridlungvit.evaluation.evaluate, hybridlungvit.reporting.audit_report
import hybridlungvit.reporting.figures, hybridlungvit.reporting.macros
import hybridlungvit.reporting.tables, hybridlungvit.cli
{STYLED}
""",
    "tex": "import hybridlungvit.reporting.pdf, hybridlungvit.cli",
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_rules_import_no_more_than_their_environment_has(name):
    absent = conda("environment.yml").keys() - conda(f"workflow/envs/{name}.yaml").keys()
    absent = {MODULES.get(package, package) for package in absent}
    assert "snakemake" in absent
    code = BLOCKER.format(absent=absent, code=RULES[name])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_property_test_fails_because_the_machine_is_slow():
    profile = hypothesis.settings.default
    assert profile.deadline is None
    assert hypothesis.HealthCheck.too_slow in profile.suppress_health_check
    assert profile.print_blob
