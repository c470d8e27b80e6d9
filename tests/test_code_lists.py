"""Every rule names the code that its stage imports: an edited module leaves no stale result."""

import ast
import re

import pytest
from conftest import REPOSITORY, checkout, snakemake

SOURCE = REPOSITORY / "src" / "hybridlungvit"
STAGES = ("data", "audit", "model", "training", "evaluation", "explain", "reporting", "temperature")
DECIDES_NOTHING = {
    "data/parallel",  # how many processes read images
    "reporting/problems",  # how a problem is worded
}
FREE = {
    "leaks": "an edited detector is no reason to train again; `audit` repeats the check",
    "mask_benchmark": "calls a script of benchmarks/, not the package",
    "all": "runs nothing",
}


def imported(tree):
    """Modules of the package that a piece of code imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hybridlungvit"):
            base = "/".join(node.module.split(".")[1:])
            for name in [base, *(f"{base}/{alias.name}".strip("/") for alias in node.names)]:
                if (SOURCE / f"{name}.py").is_file():
                    yield name


def closure(tree):
    """The same with what those modules import in turn."""
    found, waiting = set(), list(imported(tree))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imported(ast.parse((SOURCE / f"{name}.py").read_text(encoding="utf-8")))
    return found


def stage_imports():
    """By sub-command, the modules of stages behind it."""
    commands = ast.parse((SOURCE / "cli.py").read_text(encoding="utf-8")).body
    return {
        node.name.replace("_", "-"): {
            name for name in closure(node) if name.split("/")[0] in STAGES
        }
        for node in commands
        if isinstance(node, ast.FunctionDef)
    }


def jobs_of(text):
    """Rule, sub-command, files read and files written of every job in a dry run."""
    for block in re.split(r"\n(?=rule |localrule )", text)[1:]:
        fields = dict(re.findall(r"^    (input|output): (.*)$", block, re.MULTILINE))
        command = re.search(r"python -m hybridlungvit ([\w-]+)", block)
        yield (
            re.match(r"\w+ (\w+)", block)[1],
            command and command[1],
            set(fields.get("input", "").split(", ")),
            set(fields.get("output", "").split(", ")),
        )


def lists_of(text):
    """By rule: its sub-command, and the modules among its inputs and those of what it reads."""
    jobs, writers = list(jobs_of(text)), {}
    for job in jobs:
        writers |= dict.fromkeys(job[3], job)
    named = {}

    def modules(job):
        rule, _, reads, _ = job
        key = (rule, *sorted(job[3]))
        if key not in named:
            own = {n.removeprefix("src/hybridlungvit/") for n in reads if n.endswith(".py")}
            upstream = [writers[name] for name in reads if name in writers]
            named[key] = {n.removesuffix(".py") for n in own}.union(*map(modules, upstream))
        return named[key]

    return {job[0]: (job[1], modules(job)) for job in jobs}


@pytest.fixture(scope="module", params=["tiny.yaml", "config/kermany.yaml"])
def planned(request, tmp_path_factory):
    """What a run of a study from the start would do: phantoms, or downloaded images."""
    folder = checkout(tmp_path_factory.mktemp("plan"))
    done = snakemake(folder, "-n", "-F", "-p", "--configfile", request.param)
    assert done.returncode == 0, done.stderr
    return lists_of(done.stdout + done.stderr)


def test_every_rule_names_the_code_behind_it(planned):
    needed, missing = stage_imports(), {}
    assert {"train", "score", "metrics", "compare", "tables", "pdf"} <= planned.keys()
    for rule, (command, named) in planned.items():
        if rule not in FREE:
            lacking = needed[command] - named - DECIDES_NOTHING
            if lacking:
                missing[rule] = sorted(lacking)
    assert not missing


def test_no_rule_names_code_that_is_not_there(planned):
    for rule, (_, named) in planned.items():
        for name in named:
            assert (SOURCE / f"{name}.py").is_file() or name.startswith("benchmarks/"), (rule, name)


def test_the_closure_follows_imports_inside_functions_and_of_names():
    tree = ast.parse("def f():\n    from hybridlungvit.reporting import tables\n")
    assert {"reporting/tables", "reporting/facts", "evaluation/predictions"} <= closure(tree)
