"""README and docs: what they tell people to type is there, and the README's snippet is right."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
from conftest import REPOSITORY
from snakemake.cli import get_argument_parser

from hybridlungvit.cli import MAIN_STUDY, app
from hybridlungvit.companions.cite import citation
from hybridlungvit.companions.readme import MARKED
from hybridlungvit.config import load_study
from hybridlungvit.io import StudyError, read_json
from hybridlungvit.paths import Layout

README = REPOSITORY / "README.md"
DOCUMENTS = [README, *sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "CONTRIBUTING.md"]
CODE = re.compile(r"^```bash\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)


def typed(program):
    """The arguments of each call of a program in code of the documents."""
    for document in DOCUMENTS:
        for block, inline in CODE.findall(document.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines() or [inline]:
                words = shlex.split(line, comments=True)
                if words[:1] == [program] and words[1:]:
                    # N stands for a number, and what follows a > is the shell's.
                    words = ["1" if word == "N" else word for word in words[1:]]
                    words = words[: words.index(">")] if ">" in words else words
                    yield pytest.param(words, id=f"{document.name}: {line[:60]}")


@pytest.mark.parametrize("words", list(typed("hybridlungvit")))
def test_a_command_has_the_options_it_is_shown_with(words, monkeypatch):
    monkeypatch.setenv("HYBRIDLUNGVIT_CONFIG", "config/demo.yaml")  # as in the workflow
    if "--help" not in words:
        command = typer.main.get_command(app).commands[words[0]]
        command.make_context(words[0], words[1:])


@pytest.mark.parametrize("words", list(typed("snakemake")))
def test_snakemake_knows_its_options(words):
    get_argument_parser().parse_args(words)


@pytest.mark.parametrize("words", list(typed("make")))
def test_make_knows_its_targets(words):
    done = subprocess.run(["make", "-n", *words], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(document):
    text = document.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    links += [f"{REPOSITORY}/{config}" for config in re.findall(r"config/[\w-]+\.yaml", text)]
    missing = [link for link in links if not (document.parent / link).exists()]
    assert missing == []


def test_the_readme_is_short_and_leads_to_every_document():
    text = README.read_text(encoding="utf-8")
    assert len(MARKED.sub("", text).split()) <= 1100
    assert {path.name for path in DOCUMENTS[1:]} <= set(re.findall(r"([\w-]+\.md)\)", text))


def test_the_readme_counts_the_published_images():
    images = (REPOSITORY / "results" / MAIN_STUDY / "manifest.csv").read_bytes().count(b"\n") - 1
    assert f"| Kermany's, {images:,} |" in README.read_text(encoding="utf-8")


def test_metrics_over_other_seeds_than_the_configs_are_not_cited(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    study = load_study(Path("config") / f"{MAIN_STUDY}.yaml")
    fewer = study.model_copy(update={"seeds": study.seeds[:3]})
    assert "10 training seeds" in citation(study, "midline", Layout(MAIN_STUDY))
    with pytest.raises(StudyError, match="which are not those of the config"):
        citation(fewer, "midline", Layout(MAIN_STUDY))


def test_the_readmes_snippet_gives_the_published_aucs(monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    (snippet,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippet.splitlines()) <= 10
    exec(snippet, {})
    printed = dict(re.findall(r"^(\S+) +(0\.\d+)$", capsys.readouterr().out, re.MULTILINE))
    paths = (REPOSITORY / "results" / MAIN_STUDY / "metrics").glob("*.json")
    records = {path.stem: read_json(path) for path in paths if path.stem != "comparisons"}
    estimates = {name: record["headline"]["auc"]["estimate"] for name, record in records.items()}
    assert {name: float(auc) for name, auc in printed.items()} == {
        name: round(estimate, 3) for name, estimate in estimates.items()
    }


def test_make_help_lists_every_target_with_a_comment():
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)", text, re.MULTILINE)
    targets = set(re.findall(r"^([a-z-]+):(?! export)", text, re.MULTILINE))
    done = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True)
    listed = dict(re.findall(r"^make ([\w-]+) +(\S.*)$", done.stdout, re.MULTILINE))
    assert targets == set(listed) == set(phony.split())
