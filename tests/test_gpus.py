"""Jobs share the GPUs of a machine without ever sharing one; nvidia-smi is played by a script."""

import itertools
import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import TINY, checkout, snakemake

from hybridlungvit import gpus
from hybridlungvit.config import Compute
from hybridlungvit.io import StudyError

UUIDS = ["GPU-aaaa", "GPU-bbbb"]
AUTO = Compute(device="auto")
# Claims a GPU, says so, and holds it until its input ends.
HOLDER = """
import os, sys
from hybridlungvit.config import Compute
from hybridlungvit.gpus import claim_gpu
claim_gpu(Compute(device="auto"))
print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.read()
"""

LOGGED = "import logging, sys; logging.basicConfig(stream=sys.stdout, level='INFO')"
NO_TOOL = "from hybridlungvit import gpus; gpus._listed = dict"
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Two GPUs in nvidia-smi, and a temporary folder, hence locks, of the test's own."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    rows = "\\n".join(f"{number}, {uuid}" for number, uuid in enumerate(UUIDS))
    tool.write_text(f"#!/bin/sh\nprintf '{rows}\\n'\n")
    tool.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(gpus, "_held", held := {})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield
    for lock in held.values():
        lock.release()


def holder(before=""):
    return subprocess.Popen([sys.executable, "-c", before + HOLDER], **PIPES)


def test_without_a_gpu_nothing_is_claimed(monkeypatch):
    monkeypatch.setattr(gpus, "_listed", dict)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.claim_gpu(AUTO) is None
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_study_on_the_processor_claims_none(machine):
    assert gpus.claim_gpu(Compute(device="cpu")) is None
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("1", ["GPU-bbbb"]),
        ("1, 0", ["GPU-bbbb", "GPU-aaaa"]),
        ("GPU-bbbb", ["GPU-bbbb"]),
        ("MIG-cccc", ["MIG-cccc"]),
        ("", []),
        ("-1", []),
    ],
)
def test_what_the_user_or_slurm_hides_stays_hidden(machine, monkeypatch, given, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert gpus.visible_gpus() == names


def test_a_second_claim_of_one_process_is_the_first(machine):
    assert gpus.claim_gpu(AUTO) == gpus.claim_gpu(AUTO) == "GPU-aaaa"


def test_the_same_number_in_two_slurm_jobs_may_be_two_gpus(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    processes = []
    for job in ("17", "18"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        processes.append(subprocess.Popen([sys.executable, "-c", NO_TOOL + HOLDER], **PIPES))
    assert [process.stdout.readline().strip() for process in processes] == ["0", "0"]
    for process in processes:
        process.communicate()


def test_processes_take_different_gpus_and_wait_when_there_is_none(machine):
    holders = [holder(), holder()]
    names = [process.stdout.readline().strip() for process in holders]
    assert sorted(names) == UUIDS
    third = holder(LOGGED)
    assert "other jobs hold every GPU" in third.stdout.readline()
    holders[1].kill()  # no chance to let go by itself
    assert f"computing on GPU {names[1]}" in third.stdout.readline()
    assert third.stdout.readline().strip() == names[1]
    for process in (*holders, third):
        process.communicate()


@pytest.mark.slow
def test_trainings_never_meet_on_a_gpu_even_if_snakemake_is_told_of_too_many(machine, tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    checkout(folder)
    study = TINY | {"compute": TINY["compute"] | {"device": "auto"}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    trained = [f"{variant}/seed-{seed}" for variant in ("no_seg", "plain_deit") for seed in (0, 1)]
    root = folder / "results" / "tiny"
    targets = [f"results/tiny/runs/{run}/run.json" for run in trained]
    arguments = ("--cores", "4", "--resources", "gpu=3", "--configfile", "tiny.yaml")
    done = snakemake(folder, *targets, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    uses = {}
    for run in trained:
        # From the claim to the log's last line; Snakemake touches the outputs some time later.
        log = (root / "logs" / "train" / f"{run.replace('/', '-')}.log").read_text()
        (name,) = re.findall(r"INFO computing on GPU (\S+)$", log, re.M)
        lines = log[log.index("computing on GPU") - len("2026-01-01 00:00:00,000 INFO ") :]
        times = re.findall(r"^(\d{4}-\S+ \S+) INFO", lines, re.M)
        uses.setdefault(name, []).append((times[0], times[-1]))
    assert sorted(uses) == UUIDS
    for spans in uses.values():
        ordered = sorted(spans)
        assert all(end < start for (_, end), (start, _) in itertools.pairwise(ordered))


def test_a_folder_that_cannot_be_written_is_named(machine, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    with pytest.raises(StudyError, match=r"file/hybridlungvit-gpus.* TMPDIR"):
        gpus.claim_gpu(AUTO)
