"""The committed study: its paper passes the check, and nothing is published that should not be."""

import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY

from hybridlungvit.companions.cite import citation
from hybridlungvit.companions.verify import verify
from hybridlungvit.config import load_study
from hybridlungvit.io import StudyError
from hybridlungvit.paper.check import check_paper
from hybridlungvit.paths import Layout
from hybridlungvit.seal import check_seal

STUDIES = ("kermany-cpu",)


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
    names = [name for name in done.stdout.splitlines() if Path(name).name != "SHA256SUMS"]
    suffixes = {Path(name).suffix for name in names}
    assert suffixes <= {".csv", ".json", ".md", ".tex", ".pdf", ".bib", ".yaml", ".png", ".j2"}
    images = [name for name in done.stdout.splitlines() if name.endswith(".png")]
    assert images == ["paper/preview.png"]


def test_a_clone_that_trained_nothing_has_nothing_to_verify(published):
    if subprocess.run(["git", "rev-parse"], cwd=REPOSITORY, capture_output=True).returncode:
        pytest.skip("not a git checkout")
    with pytest.raises(StudyError, match="nothing to verify: the runs are those of HEAD"):
        verify(*published, "HEAD")


def test_what_the_paper_takes_as_it_is_has_its_seal(published):
    check_seal(*published)
