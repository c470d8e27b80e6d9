"""The figures drawn in TikZ: the workflow against Snakemake's own graph, and the patients' flow."""

import re
import shutil
from itertools import pairwise, product
from types import SimpleNamespace

import pytest
from conftest import REPOSITORY, checkout, snakemake

from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.reporting.macros import _data
from hybridlungvit.reporting.manuscript import asked, read_source

WORKFLOW = REPOSITORY / "paper" / "figures" / "workflow.tex"
FLOW = REPOSITORY / "paper" / "figures" / "flow.tex"
STUDIES = {"demo", "kermany"}
"""Together they have every rule: one makes its images and knows their lungs, one downloads them."""


def names(text):
    return [name for name in re.split(r"[\s,()]+", text) if name]


def drawn(text):
    """The figure as (file of each rule, dependencies), groups replaced by their rules."""
    pattern = r"\\rulenode\{(\w+)\}\{(\w+)\}\{[^}]*\}\{([^}]*)\}"
    nodes, printed = {}, {}
    for kind, rule, label in re.findall(pattern, text):
        nodes[rule] = kind
        printed[rule] = label.replace("\\\\", "").replace("\\_", "_")
    groups = {
        name: names(rules) for name, rules in re.findall(r"\\rulegroup\{(\w+)\}\{([^}]*)\}", text)
    }
    pairs = [
        pair
        for sources, targets in re.findall(r"\\flow\{[-.\d]+\}\{([^}]*)\}\{([^}]*)\}", text)
        for pair in product(names(sources), names(targets))
    ]
    for chain in re.findall(r"\\steps\{([^}]*)\}", text):
        rules = names(chain)
        pairs += pairwise(rules)
    edges = {
        edge
        for source, target in pairs
        for edge in product(groups.get(source, [source]), groups.get(target, [target]))
    }
    return nodes, printed, edges


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """The dependencies between rules, as Snakemake finds them, over ``STUDIES``."""
    folder = checkout(tmp_path_factory.mktemp("graph"))
    found = set()
    for study in sorted(STUDIES):
        config = f"config/{study}.yaml"
        done = snakemake(folder, "--rulegraph", "--forceall", "--configfile", config)
        assert done.returncode == 0, done.stderr
        rules = dict(re.findall(r'(\d+)\[label = "(\w+)"', done.stdout))
        edges = re.findall(r"(\d+) -> (\d+)", done.stdout)
        found |= {(rules[a], rules[b]) for a, b in edges}
    return found


def reduced(edges):
    """The edges that do not follow from others: none leads where a longer way leads, too."""
    after = {a: {b for x, b in edges if x == a} for a, _ in edges}

    def reach(rule):
        return {rule}.union(*(reach(b) for b in after.get(rule, ())))

    longer = {(a, c) for a in after for b in after[a] for c in reach(b) - {b}}
    return edges - longer


def declared():
    """Each rule's file, from the workflow's own text."""
    files = {"Snakefile": "paper"}
    files |= {f"workflow/rules/{p.name}": p.stem for p in REPOSITORY.glob("workflow/rules/*.smk")}
    return {
        rule: stage
        for path, stage in files.items()
        for rule in re.findall(r"^\s*rule (\w+):", (REPOSITORY / path).read_text(), re.MULTILINE)
    }


def test_the_workflow_figure_has_every_rule_in_the_colour_of_its_stage():
    nodes, printed, _ = drawn(read_source(WORKFLOW).text)
    assert nodes == declared()
    assert printed == {rule: rule for rule in nodes}


def test_the_workflow_figure_has_every_dependency_and_no_other(graph):
    nodes, _, edges = drawn(read_source(WORKFLOW).text)
    assert {rule for edge in graph for rule in edge} == set(nodes)
    assert edges == reduced(graph)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"\rulenode{audit}{leaks}{8.4,0}{leaks}", ""),
        (r"\steps{download,manifest}", ""),
        (r"\steps{download,manifest}", r"\steps{download,manifest,quality}"),
        ("(macros)(tables)(figures)", "(macros)(tables)"),
    ],
)
def test_a_figure_that_drifts_is_noticed(graph, old, new):
    text = read_source(WORKFLOW).text
    assert old in text
    nodes, _, edges = drawn(text.replace(old, new))
    right = nodes == declared() and edges == reduced(graph)
    assert not right


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
