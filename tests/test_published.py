"""The committed study: its paper passes the check, and nothing is published that should not be."""

import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY

from hybridlungvit.configfile import load_study
from hybridlungvit.paths import Layout
from hybridlungvit.reporting.check import check_paper
from hybridlungvit.reporting.cite import citation
from hybridlungvit.reporting.verify import EXACT, verify

STUDIES = ("kermany-cpu", "kermany-cpu-224")


@pytest.fixture(params=STUDIES)
def published(request, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    return load_study(Path("config") / f"{request.param}.yaml"), Layout(request.param)


@pytest.mark.slow
def test_the_published_paper_passes_its_check(published):
    study, layout = published
    before = layout.check.read_bytes()
    check_paper(study, layout)
    assert layout.check.read_bytes() == before


def test_the_published_result_can_be_cited(published):
    study, layout = published
    for variant in study.variants:
        assert "over test patients and 3 training seeds" in citation(study, variant, layout)


def test_no_image_and_no_weight_is_published():
    listing = ["git", "ls-files", "results", "paper"]
    done = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    suffixes = {Path(name).suffix for name in done.stdout.splitlines()}
    assert suffixes <= {".csv", ".json", ".md", ".tex", ".pdf", ".bib", ".yaml", ".png", ".j2"}
    images = [name for name in done.stdout.splitlines() if name.endswith(".png")]
    assert images == ["paper/preview.png"]


def test_verifying_the_published_runs_themselves_is_said_to_be_no_reproduction(published, caplog):
    if subprocess.run(["git", "rev-parse"], cwd=REPOSITORY, capture_output=True).returncode:
        pytest.skip("not a git checkout")
    rows = verify(*published, "HEAD")
    assert {row.words for row in rows} == {EXACT}
    assert "the runs are the published ones" in caplog.text
