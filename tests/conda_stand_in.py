"""What ``conda env create`` would make, with the packages of the environment that runs the tests.

The new environment holds those that the file names and what they need in turn. Any other package
is absent: no import finds it. Version ranges are not looked at.
"""

import argparse
import venv
from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import distribution, distributions
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# The same software under conda-forge's names.
CONDA_NAMES = {
    "torch": "pytorch",
    "opencv-python-headless": "opencv",
    "matplotlib": "matplotlib-base",
}
PYPI_NAMES = {conda: pypi for pypi, conda in CONDA_NAMES.items()}
NO_DISTRIBUTION = {"python", "tectonic"}  # TeX comes from the machine


def create(file: Path, prefix: Path) -> None:
    """Create the environment ``prefix`` for a conda environment file."""
    entries = yaml.safe_load(file.read_text(encoding="utf-8"))["dependencies"]
    names = {entry.split()[0] for entry in entries} - NO_DISTRIBUTION
    venv.create(prefix, symlinks=True)
    (site,) = prefix.glob("lib/python*/site-packages")
    link_packages(with_dependencies(PYPI_NAMES.get(name, name) for name in names), site)


def with_dependencies(names: Iterable[str]) -> set[str]:
    """Distributions by name, with what they need in turn; extras only where one asks for them."""
    waiting = [Requirement(name) for name in names]
    reached: set[tuple[str, str]] = set()
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        for extra in {"", *needed.extras}:
            if (name, extra) not in reached:
                reached.add((name, extra))
                requirements = map(Requirement, distribution(name).requires or ())
                waiting += [
                    requirement
                    for requirement in requirements
                    if not requirement.marker or requirement.marker.evaluate({"extra": extra})
                ]
    return {name for name, _ in reached}


def link_packages(names: set[str], site: Path) -> None:
    """Link the files of distributions into ``site``: whole folders where no other one has a part.

    Folders such as ``nvidia`` and ``google`` are shared by several distributions.
    """
    owners: dict[tuple[str, ...], set[str]] = defaultdict(set)
    installed = [(canonicalize_name(each.name), each) for each in distributions()]
    for name, each in installed:
        for file in each.files or ():
            for depth in range(1, len(file.parts) + 1):
                owners[file.parts[:depth]].add(name)
    linked = set()
    for name, each in installed:
        for file in each.files or () if name in names else ():
            if ".." in file.parts:  # a script
                continue
            depths = range(1, len(file.parts) + 1)
            parts = next(file.parts[:d] for d in depths if owners[file.parts[:d]] <= names)
            if parts not in linked:
                linked.add(parts)
                target = site.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(each.locate_file("/".join(parts)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--prefix", type=Path, required=True)
    arguments, _ = parser.parse_known_args()
    create(arguments.file, arguments.prefix)
