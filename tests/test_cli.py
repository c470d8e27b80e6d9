"""The command line: exit statuses, and one message instead of a traceback."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from hybridlungvit.configfile import study_from
from hybridlungvit.errors import StudyError


def start(folder, *arguments):
    command = [sys.executable, "-m", "hybridlungvit", *arguments]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_says_how_to_resume_and_fails(tiny, cached, tmp_path, sent):
    tiny["training"] |= {"epochs": 500, "patience": 500}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tiny, sort_keys=False))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "tiny").mkdir()
    for name in ("manifest.csv", "masks.csv", "cache"):
        (tmp_path / "results" / "tiny" / name).symlink_to(cached.root / name)
    job = start(tmp_path, "train", "--config", "study.yaml", "--variant", "no_seg", "--seed", "0")
    work = tmp_path / "results" / "tiny" / "work"
    until = time.monotonic() + 60
    while not list(work.glob("no_seg/seed-0/*/epoch-*")) and time.monotonic() < until:
        time.sleep(0.1)
    os.kill(job.pid, sent)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 130
    assert "run the same command again" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--config", "nowhere.yaml", "--variant", "a", "--seed", "0"], "nowhere.yaml"),
        (["train", "--config", "study.yaml", "--variant", "nope", "--seed", "0"], "no variant"),
        (["train", "--config", "study.yaml", "--variant", "no_seg", "--seed", "7"], "no seed"),
        (["manifest", "--config", "study.yaml"], "phantom: no such folder"),
        (["fly"], "No such command"),
    ],
)
def test_bad_calls_fail_with_one_message(tiny, tmp_path, arguments, expected):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tiny, sort_keys=False))
    job = start(tmp_path, *arguments)
    _, errors = job.communicate(timeout=60)
    assert job.returncode != 0
    assert expected in errors
    assert "Traceback" not in errors


def test_infinite_numbers_and_reserved_names_are_refused(tiny):
    with pytest.raises(StudyError, match="learning_rate"):
        study_from(tiny | {"training": {"learning_rate": float("inf")}}, "x")
    tiny["variants"]["comparisons"] = {"label": "x", "description": "y"}
    with pytest.raises(StudyError, match="comparisons"):
        study_from(tiny, "x")
