"""The lists of packages agree, and rules are run with no more than their environment's."""

import os
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from conda_stand_in import CONDA_NAMES
from conftest import REPOSITORY, checkout, snakemake
from packaging.requirements import Requirement
from rattler import MatchSpec, Version, VersionSpec

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
    return [Requirement(text) for text in (*project["dependencies"], *extras["slurm"])]


def test_versions_of_pip_and_conda_agree():
    environment, versions = conda("environment.yml"), pinned()
    for requirement in declared():
        name = CONDA_NAMES.get(requirement.name, requirement.name)
        version = versions[requirement.name.lower()]
        assert version in requirement.specifier, requirement
        (bound,) = (s.version for s in requirement.specifier if s.operator == ">=")
        assert environment[name].matches(Version(version)), name
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
def test_rule_environments_are_subsets_without_the_default_channels(name):
    everything, path = conda("environment.yml"), f"workflow/envs/{name}.yaml"
    for package, versions in conda(path).items():
        assert str(everything[package]) == str(versions)
    for file in ("environment.yml", path):
        channels = yaml.safe_load((REPOSITORY / file).read_text())["channels"]
        assert (channels[0], channels[-1]) == ("conda-forge", "nodefaults")


# What the workflows of the tests run in: see snakemake_call


@pytest.fixture(scope="module")
def created(environments, tmp_path_factory):
    """By name, the environment that Snakemake had created for the rules."""
    folder = checkout(tmp_path_factory.mktemp("created"))
    done = snakemake(folder, "--conda-create-envs-only", "--configfile", "tiny.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    files = {file.read_text(): file.with_suffix("") for file in environments.glob("*.yaml")}
    folder = REPOSITORY / "workflow" / "envs"
    return {name: files[(folder / f"{name}.yaml").read_text()] for name in ENVIRONMENTS}


def python(prefix, code, *arguments):
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    call = [prefix / "bin" / "python", "-c", code, *arguments]
    return subprocess.run(call, env=variables, capture_output=True, text=True)


FIND = "import importlib.util, sys\nprint(*filter(importlib.util.find_spec, sys.argv[1:]))"
MODELS = {"torch", "torchvision", "timm", "cv2", "pytorch_grad_cam", "nvidia"}
TABLES = {"numpy", "scipy", "sklearn", "pandas", "matplotlib", "seaborn", "jinja2", "PIL"}
WORDS = {"pydantic", "yaml", "typer", "rich"}
PAGE = {"markdown_it", "vl_convert"}
NOWHERE = {"snakemake", "pytest", "hypothesis", "hybridlungvit"}


@pytest.mark.parametrize(
    ("name", "present", "absent"),
    [
        ("train", MODELS - {"nvidia"} | {"pooch"} | TABLES | WORDS, NOWHERE),
        ("analysis", TABLES | WORDS | PAGE | {"statsmodels"}, MODELS | NOWHERE),
        ("tex", WORDS, MODELS | TABLES | NOWHERE),
    ],
)
def test_an_environment_has_what_its_file_names_and_no_more(created, name, present, absent):
    done = python(created[name], FIND, *present, *absent)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == present


ADDED = """
rule added_{number}:
    output: "added_{number}"
    {environment}
    shell: "python -c 'import {module}' && touch {{output}}"
"""


@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="needs a virtual environment")
def test_a_new_rule_finds_the_packages_of_its_environment_alone(tmp_path):
    folder = checkout(tmp_path)
    added = {("analysis", "pandas"): True, ("analysis", "timm"): False, (None, "timm"): False}
    with (folder / "Snakefile").open("a") as stream:
        for number, (name, module) in enumerate(added):
            environment = f'conda: "workflow/envs/{name}.yaml"' if name else ""
            stream.write(ADDED.format(number=number, environment=environment, module=module))
    files = [f"added_{number}" for number in range(len(added))]
    done = snakemake(folder, *files, "--keep-going", "--configfile", "tiny.yaml")
    assert done.returncode != 0
    assert [(folder / file).exists() for file in files] == list(added.values())
