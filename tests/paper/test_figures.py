"""The figure drawn in TikZ: the patients' flow."""

import re
import shutil
from types import SimpleNamespace

from conftest import REPOSITORY

from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.paper.macros import _data
from hybridlungvit.paper.manuscript import asked, read_source

FLOW = REPOSITORY / "paper" / "figures" / "flow.tex"


def test_the_flow_asks_for_numbers_that_add_up(study, cached, tmp_path):
    facts = SimpleNamespace(study=study, manifest=read_manifest(cached.manifest))
    given = dict(_data(facts))
    (tmp_path / "figures").mkdir()
    shutil.copy(FLOW, tmp_path / "figures")
    wanted = asked(tmp_path).given - {"reference", "level", "unused.folder", "train.limit"}
    assert wanted <= set(given)

    def count(part, group):
        return int(given[f"{part}.{group}"].replace(",", ""))

    for group in ("images", "patients"):
        assert count("all", group) == count("development", group) + count("test", group)
        assert count("development", group) == count("train", group) + count("val", group)
    for part in ("train", "val", "test"):
        assert count(part, "images") == count(part, "normal") + count(part, "pneumonia")
        assert count(part, "pneumonia") == count(part, "bacteria") + count(part, "virus")
        people = ("normal.patients", "bacteria.patients", "virus.patients")
        assert count(part, "patients") == sum(count(part, group) for group in people)
    assert count("all", "images") == len(facts.manifest) == 90


def test_the_flow_types_no_number():
    text = read_source(FLOW).text
    text = re.sub(r"\\begin\{tikzpicture\}\[.*?\n  \]", "", text, flags=re.DOTALL)
    options, places = r"\[[^]]*\]", r"(?:\bat |\+\+)\([^)]*\)"
    assert not re.findall(r"\d", re.sub(f"{options}|{places}", "", text))
