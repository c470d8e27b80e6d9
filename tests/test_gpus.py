"""Jobs share the GPUs of a machine without ever sharing one; nvidia-smi is played by a script."""

import os
import subprocess
import sys

import pytest

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
    command, pipe = [sys.executable, "-c", before + HOLDER], subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


@pytest.mark.parametrize(("device", "present"), [("auto", False), ("cpu", True)])
def test_without_a_gpu_or_on_the_processor_none_is_claimed(machine, monkeypatch, device, present):
    if not present:
        monkeypatch.setattr(gpus, "_listed", dict)
    assert gpus.claim_gpu(Compute(device=device)) is None
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize(
    ("given", "names"),
    [("1, 0", ["GPU-bbbb", "GPU-aaaa"]), ("MIG-cccc", ["MIG-cccc"]), ("", []), ("-1", [])],
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
        processes.append(holder(NO_TOOL))
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


def test_a_folder_that_cannot_be_written_is_named(machine, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    with pytest.raises(StudyError, match=r"file/hybridlungvit-gpus.* TMPDIR"):
        gpus.claim_gpu(AUTO)
