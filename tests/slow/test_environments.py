"""The lists of packages agree."""

import re
import tomllib

import pytest
import yaml
from conda_stand_in import CONDA_NAMES
from conftest import REPOSITORY
from packaging.requirements import Requirement
from rattler import MatchSpec, Version, VersionSpec

MODELS = {"pytorch", "torchvision", "timm", "opencv", "grad-cam"}


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


@pytest.mark.parametrize(
    ("name", "needed", "absent"),
    [
        ("train", {"pooch"}, {"snakemake"}),
        ("analysis", set(), MODELS | {"snakemake"}),
        ("tex", {"tectonic"}, MODELS | {"snakemake", "numpy", "pandas"}),
    ],
)
def test_rule_environments_are_subsets_without_the_default_channels(name, needed, absent):
    """``needed``: what no workflow of the tests asks for."""
    everything, path = conda("environment.yml"), f"workflow/envs/{name}.yaml"
    packages = conda(path)
    assert needed <= packages.keys() and not absent & packages.keys()
    for package, versions in packages.items():
        assert str(everything[package]) == str(versions)
    for file in ("environment.yml", path):
        channels = yaml.safe_load((REPOSITORY / file).read_text())["channels"]
        assert (channels[0], channels[-1]) == ("conda-forge", "nodefaults")
