"""The seal: what is not computed again for a paper is what the study ended with."""

import re
import shutil
import subprocess

import pytest
from conftest import snakemake

from hybridlungvit.config import study_from
from hybridlungvit.io import StudyError
from hybridlungvit.paths import Layout
from hybridlungvit.seal import check_seal, sealed_files, write_seal

LAYOUT = Layout("tiny")
FIGURES = LAYOUT.generated / "figures"


def test_a_finished_study_is_sealed_and_sha256sum_agrees(finished_copy):
    check_seal(finished_copy, LAYOUT)
    done = subprocess.run(["sha256sum", "-c", LAYOUT.seal], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(sealed_files(finished_copy, LAYOUT))
    before = LAYOUT.seal.read_bytes()
    write_seal(finished_copy, LAYOUT)
    assert LAYOUT.seal.read_bytes() == before


def test_masks_from_elsewhere_are_not_benchmarked(tiny):
    measured = sealed_files(study_from(tiny, "tiny"), LAYOUT)
    tiny["data"]["masks"] = "masks"
    given = sealed_files(study_from(tiny, "tiny"), LAYOUT)
    assert {path.name for path in set(measured) - set(given)} == {"mask_benchmark.tex"}


def swap_figures():
    shutil.copy(FIGURES / "masks.pdf", FIGURES / "gradcam.pdf")
    return FIGURES / "gradcam.pdf"


def test_whatever_is_altered_missing_or_unsealed_is_named(finished_copy):
    history = LAYOUT.run("seg_0.1", 0) / "history.csv"
    altered = [LAYOUT.saliency("no_seg"), LAYOUT.audit, history]
    for path in altered:
        path.write_text(re.sub(r"[1-8]", "9", path.read_text(), count=1))
    altered.append(swap_figures())
    LAYOUT.leaks.unlink()
    lines = LAYOUT.seal.read_text().splitlines()
    LAYOUT.seal.write_text("\n".join(line for line in lines if "manifest" not in line) + "\n")
    with pytest.raises(StudyError, match=r"SHA256SUMS: 6 of \d+ results ") as caught:
        check_seal(finished_copy, LAYOUT)
    named = {f"{LAYOUT.leaks}: missing", f"{LAYOUT.manifest}: not sealed"}
    named |= {f"{path}: altered" for path in altered}
    assert set(str(caught.value).splitlines()[1:]) == named


def test_make_paper_stops_at_a_broken_seal_and_prints_nothing_new(finished_copy, tmp_path):
    path, before = swap_figures(), LAYOUT.pdf.read_bytes()
    options = ("--workflow-profile", "workflow/profiles/paper", "--configfile", "tiny.yaml")
    done = snakemake(tmp_path, *options)
    assert done.returncode != 0
    assert f"{path}: altered" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert LAYOUT.pdf.read_bytes() == before


def test_a_missing_or_damaged_seal_says_how_to_go_on(finished_copy):
    LAYOUT.seal.write_text(LAYOUT.seal.read_text() + "gibberish\n")
    with pytest.raises(StudyError, match=r"line \d+ is none of `sha256sum`"):
        check_seal(finished_copy, LAYOUT)
    LAYOUT.seal.unlink()
    with pytest.raises(StudyError, match=r"SHA256SUMS: not found\. A study writes it at its end"):
        check_seal(finished_copy, LAYOUT)


def test_an_unfinished_study_is_not_sealed(finished_copy):
    LAYOUT.predictions("no_tta", 0).unlink()
    before = LAYOUT.seal.read_bytes()
    with pytest.raises(StudyError, match=r"no_tta.seed-0\.csv: not found, so the study cannot be"):
        write_seal(finished_copy, LAYOUT)
    assert LAYOUT.seal.read_bytes() == before
