"""The paper's check, on a finished study that is broken on purpose in one place at a time."""

import json
import os
import random
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from conftest import TINY, append, commit, replace, snakemake

from hybridlungvit.companions.readme import check_readme, render_block, write_readme
from hybridlungvit.companions.verify import DIFFERENT, EXACT, WITHIN, verify
from hybridlungvit.config import load_study
from hybridlungvit.io import StudyError, file_sha256, read_json
from hybridlungvit.paper.check import check_intervals, check_origins, check_paper, differences
from hybridlungvit.paper.pdf import pack_sources
from hybridlungvit.paths import Layout

LAYOUT = Layout("tiny")
MACROS = LAYOUT.generated / "macros.tex"
RESULTS = Path("paper/sections/results.tex")


@pytest.fixture
def paper(finished_copy):
    return finished_copy


def as_text(problems):
    return "\n".join(map(str, problems))


def change(path, **values):
    path.write_text(json.dumps(read_json(path) | values))


def test_every_problem_is_told_at_once_and_no_verdict_stays(paper, capsys):
    append(RESULTS, "\nThe AUC is 0.97.\n")
    path = LAYOUT.predictions("no_seg", 7)
    shutil.copy(LAYOUT.predictions("no_seg", 0), path)
    with pytest.raises(StudyError) as caught:
        check_paper(paper, LAYOUT, as_json=True)
    message = str(caught.value)
    rows = json.loads(capsys.readouterr().out)
    assert [row["check"] for row in rows] == ["text", "origins"]
    assert [f"{row['where']}: {row['what']}" for row in rows] == message.splitlines()[1:]
    assert message.startswith("the paper of tiny has 2 problems:")
    assert "the number '0.97' is typed by hand" in message
    assert f"{path}: exists, but the config does not report it" in message
    assert not LAYOUT.check.exists()


def test_estimates_outside_their_intervals_are_named(paper):
    paths = [LAYOUT.metrics("no_seg"), LAYOUT.audit]
    for path in paths:
        text, count = re.subn(r'"high": 0\.\d+', '"high": 0.0001', path.read_text(), count=1)
        assert count
        path.write_text(text)
    problems = list(check_intervals(paper, LAYOUT))
    assert [problem.where.partition(": ")[0] for problem in problems] == list(map(str, paths))
    assert all("lies outside its interval" in problem.what for problem in problems)


def test_values_that_differ_from_the_committed_ones_are_told_with_the_change():
    before = {"auc": {"estimate": 0.95, "low": 0.9}, "points": [1, 2], "seed": {"0": "a"}}
    assert not list(differences(before, before | {"auc": {"estimate": 0.95 + 1e-13, "low": 0.9}}))
    after = {"auc": {"estimate": 0.96, "low": 0.9}, "points": [1, 3], "mcc": 0.5}
    assert list(differences(before, after)) == [
        "auc.estimate: 0.95 -> 0.96 (+0.01)",
        "points.1: 2 -> 3",
        "seed.0: a -> None",
        "mcc: None -> 0.5",
    ]


def test_a_paper_that_passes_is_compared_with_the_last_commit(paper, tmp_path, caplog, capsys):
    commit(tmp_path, "results/tiny/metrics")
    with caplog.at_level("INFO"):
        check_paper(paper, LAYOUT, as_json=True)
    assert json.loads(capsys.readouterr().out) == []
    assert read_json(LAYOUT.check)["checked"] == ["text", "intervals", "origins", "readme"]
    assert "every value is the committed one" in caplog.text
    path = LAYOUT.metrics("no_seg")
    headline = read_json(path)["headline"]
    headline["brier"]["sd"] = 0.25
    change(path, headline=headline)
    check_paper(paper, LAYOUT)
    assert f"{path}: headline.brier.sd: None -> 0.25" in caplog.text
    assert "1 values differ from the committed ones" in caplog.text


def test_predictions_altered_or_of_another_config_stop_the_check_with_both_hashes(paper):
    replace(Path("tiny.yaml"), "learning_rate: 0.001", "learning_rate: 0.002")
    changed = load_study(Path("tiny.yaml"))
    replace(LAYOUT.predictions("no_seg", 0), "0.", "0.9")
    for study, what in ((paper, "file"), (changed, "config")):
        words = rf"no_seg.seed-0\.csv: made from {what} \w+, but the current {what} is \w+"
        with pytest.raises(StudyError, match=words):
            check_paper(study, LAYOUT)


def test_predictions_that_the_manifest_does_not_bear_out_are_named(paper):
    path = LAYOUT.predictions("seg_0.1", 0)
    table = pd.read_csv(path)
    table.loc[table.index[-3:], "label"] = 1 - table.label.iloc[-3:]
    table.to_csv(path, index=False)
    change(path.with_suffix(".json"), predictions_sha256=file_sha256(path))
    text = as_text(check_origins(paper, LAYOUT))
    assert f"{path}: its images, labels or patients are not those of" in text


@pytest.mark.parametrize("key", ["best_val_auc", "epochs_run", "code_commit"])
def test_a_run_record_changed_after_scoring_is_named(paper, key):
    path = LAYOUT.run("no_seg", 0) / "run.json"
    change(path, **{key: "changed" if key == "code_commit" else read_json(path)[key] + 1})
    text = as_text(check_origins(paper, LAYOUT))
    assert "scored by another run than" in text
    assert ("is not the history" in text) == (key != "code_commit")


def test_results_in_the_readme_are_compared(paper):
    readme = Path("README.md")
    readme.write_text("# Title\n" + render_block(paper, LAYOUT, picture=True))
    assert not as_text(check_readme(paper, LAYOUT))
    auc = re.search(r"\| (0\.\d{3}) \(", readme.read_text())[1]
    replace(readme, f"| {auc} (", "| 0.999 (")
    text = as_text(check_readme(paper, LAYOUT))
    assert "README.md: differs from the results: '| HybridLungViT" in text
    other = "<!-- results: other -->\n0.5\n<!-- end of results -->\n"
    block = render_block(paper, LAYOUT, picture=False)
    assert "picture" not in block
    readme.write_text(f"# Title\n{other}\n" + block.replace("| 0.", "| 1."))
    write_readme(paper, LAYOUT)
    assert readme.read_text() == f"# Title\n{other}\n{block}"
    assert not as_text(check_readme(paper, LAYOUT))
    readme.write_text(f"# Title\n{other}")
    with pytest.raises(StudyError, match="has no lines `<!-- results: tiny -->`"):
        write_readme(paper, LAYOUT)
    readme.write_text("We reach 0.973.\n<!-- benchmarks -->\n0.123\n<!-- end of benchmarks -->\n")
    text = as_text(check_readme(paper, LAYOUT))
    assert "README.md:1: the result 0.973 is typed by hand" in text
    assert "0.123" not in text


def test_the_readme_shows_what_was_declared_and_counts_the_rest(paper):
    assert "explores" not in render_block(paper, LAYOUT, picture=False)
    chosen = paper.comparison_family()[0]
    change(LAYOUT.comparisons, family=[chosen])
    statistics = paper.statistics.model_copy(update={"family": [chosen]})
    few = render_block(paper.model_copy(update={"statistics": statistics}), LAYOUT, picture=False)
    shown = re.findall(r"^\| .*\(`([^`]+)`\)", few, re.MULTILINE)
    assert set(shown) == {paper.reference, chosen}
    assert f"The paper explores {len(paper.variants) - 2} more variant" in few


PAPER = ("--workflow-profile", "workflow/profiles/paper", "--configfile", "tiny.yaml")
TEXT = {".json", ".tex", ".md", ".csv"}


def shuffle_times(folder):
    """Give every file a date of its own, in no order."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for place, path in enumerate(random.Random(0).sample(paths, len(paths))):
        os.utime(path, (1e9 + place, 1e9 + place))


ANOTHER_TEX = r"""#!/bin/sh
# Another release of TeX: its banner, and the text in another font.
[ "$1" = -version ] && { echo "pdfTeX 3.14159265-2.6-1.40.99 (TeX Live 2099)"; exit; }
for argument; do
    shift
    case "$argument" in
    \\def*) argument="\pdfinfo{/Producer (pdfTeX-9)}\AtBeginDocument{\sffamily}$argument" ;;
    esac
    set -- "$@" "$argument"
done
touch "$0.called"
exec REAL "$@"
"""


def test_the_paper_is_rebuilt_from_predictions_alone_to_the_same_text(
    finished, paper, tmp_path, monkeypatch
):
    """No image, weight or source of a gallery is there, and file times are in no order.

    Where pdflatex is, TeX is another and makes another PDF, which passes the check all the same.
    """
    program = tmp_path / "programs" / "pdflatex"
    program.parent.mkdir()
    program.write_text(ANOTHER_TEX.replace("REAL", str(shutil.which("pdflatex"))))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for path in [*tmp_path.rglob("*.npz"), LAYOUT.comparisons, LAYOUT.generated / "macros.tex"]:
        path.unlink()
    replace(LAYOUT.metrics("no_seg"), '"estimate": 0.', '"estimate": 0.1')
    shuffle_times(tmp_path / "results")
    shuffle_times(tmp_path / "paper")
    done = snakemake(tmp_path, *PAPER)
    assert done.returncode == 0, done.stdout + done.stderr
    for folder in ("results", "paper"):
        made = [p for p in (finished / folder).rglob("*") if p.suffix in TEXT]
        made = [p for p in made if not {"build", "phantom", "logs", "cache"} & {*p.parts}]
        assert len(made) > 20
        for path in made:
            assert path.read_bytes() == (tmp_path / path.relative_to(finished)).read_bytes(), path
    assert not list(tmp_path.rglob("model.safetensors"))
    if shutil.which("pdflatex"):
        assert program.with_name("pdflatex.called").exists()
        assert LAYOUT.pdf.read_bytes() != (finished / LAYOUT.pdf).read_bytes()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_the_tarball_compiles_by_itself_in_an_empty_folder(paper, tmp_path_factory):
    pack_sources(paper, LAYOUT)
    first = LAYOUT.tarball.read_bytes()
    pack_sources(paper, LAYOUT)
    assert LAYOUT.tarball.read_bytes() == first
    folder = tmp_path_factory.mktemp("arxiv")
    with tarfile.open(LAYOUT.tarball) as archive:
        archive.extractall(folder, filter="data")
    for _ in range(2):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "ms.tex"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-2000:]
    log = (folder / "ms.log").read_text(errors="replace")
    assert "undefined" not in log
    assert (folder / "ms.pdf").stat().st_size > 50_000


def test_a_link_is_not_packed(paper, tmp_path):
    (tmp_path / "secret").write_text("a password")
    (LAYOUT.generated / "notes.tex").symlink_to(tmp_path / "secret")
    with pytest.raises(StudyError, match=r"notes\.tex: is a link"):
        pack_sources(paper, LAYOUT)


def test_packing_an_uncompiled_paper_says_what_to_do(paper):
    shutil.rmtree(LAYOUT.paper / "build")
    with pytest.raises(StudyError, match=r"\.bbl: not found\. Compile the paper first"):
        pack_sources(paper, LAYOUT)


def test_an_own_run_is_told_exact_within_or_different(paper, tmp_path, capsys):
    published, path = tmp_path / "published", LAYOUT.metrics("no_seg")
    shutil.copytree(LAYOUT.comparisons.parent, published)

    def words():
        return {(r.variant, r.name): r.words for r in verify(paper, LAYOUT, str(published))}

    rows = words()
    assert set(rows.values()) == {EXACT}
    assert {variant for variant, _ in rows} == set(TINY["variants"])
    printed = f"tiny: {len(rows)} {EXACT}, 0 {WITHIN}, 0 {DIFFERENT}\n"
    assert capsys.readouterr().out == printed
    verify(paper, LAYOUT, str(published), every=True)
    assert "brier" in capsys.readouterr().out
    path = published / path.name
    headline = read_json(path)["headline"]
    auc = headline["auc"]
    auc["estimate"] = (auc["estimate"] + auc["high"]) / 2
    change(path, headline=headline)
    assert words()["no_seg", "auc"] == WITHIN
    auc["high"] = auc["low"] + 1e-6
    change(path, headline=headline)
    with pytest.raises(StudyError, match=r"1 of \d+ numbers are different, the first auc of no_s"):
        words()
    assert DIFFERENT in capsys.readouterr().out
    with pytest.raises(StudyError, match="HEAD: neither a folder nor a git revision with"):
        verify(paper, LAYOUT, "HEAD")


def test_a_clone_that_ran_nothing_has_nothing_to_verify(paper, tmp_path):
    commit(tmp_path, "results")
    with pytest.raises(StudyError, match=r"tiny: nothing to verify: \S+run.json is that of HEAD"):
        verify(paper, LAYOUT, "HEAD")
    for variant in paper.trained_variants():
        change(run := LAYOUT.run(variant, 0) / "run.json", wall_seconds=1.5)
    with pytest.raises(StudyError, match="was scored by another run"):
        verify(paper, LAYOUT, "HEAD")
    for variant in paper.variants:
        run = LAYOUT.run(paper.trained_as(variant), 0) / "run.json"
        change(LAYOUT.predictions(variant, 0).with_suffix(".json"), run=read_json(run))
    assert {row.words for row in verify(paper, LAYOUT, "HEAD")} == {EXACT}
    run.unlink()
    with pytest.raises(StudyError, match=r"nothing to verify: .*run\.json is missing"):
        verify(paper, LAYOUT, "HEAD")
