"""The committed study: its paper passes the check, and nothing is published that should not be."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

from hybridlungvit import __version__
from hybridlungvit.companions.cite import LICENCE, citation
from hybridlungvit.companions.export import weights_line
from hybridlungvit.companions.readme import PARTS, render_block
from hybridlungvit.config import load_study
from hybridlungvit.io import read_json
from hybridlungvit.paper.check import check_paper
from hybridlungvit.paper.format import format_interval
from hybridlungvit.paths import Layout
from hybridlungvit.seal import check_seal

STUDIES = ("kermany-cpu", "kermany-frozen")


@pytest.fixture(params=STUDIES)
def published(request, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    return load_study(Path("config") / f"{request.param}.yaml"), Layout(request.param)


def test_the_published_paper_has_its_seal_and_passes_its_check(published):
    study, layout = published
    check_seal(study, layout)
    before = layout.check.read_bytes()
    check_paper(study, layout)
    assert layout.check.read_bytes() == before


def test_the_benchmark_of_masks_says_of_ours_what_their_quality_says(published):
    layout = published[1]
    dice = read_json(layout.mask_quality)["annotated"]["dice"]["all"]
    table = (layout.generated / "tables" / "mask_benchmark.tex").read_text()
    assert f"Deformable template & {format_interval(dice)} & " in table


def test_the_published_result_can_be_cited_with_its_verdict(published):
    study, layout = published
    differences = read_json(layout.comparisons)["differences"]
    for variant in study.variants:
        text = citation(study, variant, layout)
        assert text.startswith(
            "In telling pneumonia from normal on the Kermany pediatric chest X-ray"
        )
        assert f"over test patients and {len(study.seeds)} training seeds" in text
        if variant == study.reference:
            assert "It is the reference of its study." in text
            continue
        difference = differences[variant]
        assert f"It is {difference['verdict']} the reference, HybridLungViT," in text
        low, high = difference["low"], difference["high"]
        assert f"{difference['estimate']:+.3f} (95% CI {low:+.3f} to {high:+.3f})" in text
        declared = variant in study.comparison_family()
        names = [f"{n}{'_adjusted' * declared}" for n in ("p_value", "p_equivalence")]
        values = (f"{p:.3f}" if (p := difference[n]) >= 0.001 else "below 0.001" for n in names)
        said = " and of equivalence ".join(values)
        adjusted = "by Holm" if declared else "unadjusted"
        assert f"margin 0.01, p of a difference {said}, {adjusted}." in text


@pytest.mark.skipif(shutil.which("bibtex") is None, reason="needs bibtex")
def test_the_bibtex_to_paste_compiles_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    study = load_study(Path("config/kermany-cpu.yaml"))
    text = citation(study, study.reference, Layout("kermany-cpu"))
    (tmp_path / "cited.bib").write_text(text[text.index("@") :])
    aux = "\\relax\n\\citation{*}\n\\bibstyle{plain}\n\\bibdata{cited}\n"
    (tmp_path / "cited.aux").write_text(aux)
    done = subprocess.run(["bibtex", "cited"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "warning" not in done.stdout.lower(), done.stdout
    entries = (tmp_path / "cited.bbl").read_text()
    assert f"version {__version__}, commit " in entries.replace("\n", " ")
    assert "rscbjbr9sj" in entries


def test_the_citation_file_names_this_version_and_the_commit_of_the_trainings():
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (__version__, LICENCE)
    runs = (REPOSITORY / "results" / "kermany-cpu" / "runs").glob("*/*/run.json")
    commits = {read_json(run)["code_commit"].removesuffix("-dirty") for run in runs}
    assert commits == {cited["commit"]}


def test_the_readmes_table_is_in_the_order_of_its_answer(published):
    sentence, table = render_block(*published, picture=False).split("| --- |", 1)
    variants = re.findall(r"^\|.*\(`(\w+)`\)", table, re.MULTILINE)[1:]
    places = [sentence.index(PARTS[variant][1]) for variant in variants]
    assert len(places) == 3 and places == sorted(places)


def test_the_models_card_is_that_of_its_study(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    card = REPOSITORY / "paper/generated/kermany-cpu/companions/model_card.md"
    published = REPOSITORY / "results/kermany-cpu/model/README.md"
    text = published.read_text()
    assert text.endswith(card.read_text())
    study = load_study(Path("config/kermany-cpu.yaml"))
    line = weights_line(study, study.reference, study.seeds[0], Layout(study.study), half=True)
    assert f"\n{line}\n" in text


def test_no_image_and_of_weights_only_the_model_is_published():
    listing = ["git", "ls-files", "results", "paper"]
    done = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in done.stdout.splitlines() if Path(name).name != "SHA256SUMS"]
    suffixes = {Path(name).suffix for name in names}
    pages = {".html", ".css", ".js", ".j2"}
    assert suffixes - {".safetensors"} <= pages | {
        ".csv", ".json", ".md", ".tex", ".pdf", ".bib", ".yaml", ".png"
    }  # fmt: skip
    weights = [name for name in names if name.endswith(".safetensors")]
    assert weights == ["results/kermany-cpu/model/model.safetensors"]
    images = [name for name in done.stdout.splitlines() if name.endswith(".png")]
    assert images == ["paper/preview.png"]
