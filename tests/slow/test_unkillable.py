"""Trainings that are killed, starved of disk, doubled or handed a foreign checkpoint."""

import os
import random
import resource
import signal
import time
from multiprocessing import get_context

import pandas as pd
import pytest
import torch
from conftest import beside

from hybridlungvit.config import study_from
from hybridlungvit.evaluation.score import score
from hybridlungvit.io import StudyError
from hybridlungvit.training.checkpoint import sole_owner
from hybridlungvit.training.loop import train

VARIANT, EPOCHS, KILLS = "seg_0.1", 30, 5
# The server imports torch once; its children then start at once, each a process of its own.
context = get_context("forkserver")
context.set_forkserver_preload(["hybridlungvit.training.loop"])


@pytest.fixture
def long(tiny):
    tiny["training"] |= {"epochs": EPOCHS, "patience": EPOCHS}
    return study_from(tiny, "long")


def start(function, *arguments):
    process = context.Process(target=function, args=arguments)
    process.start()
    return process


def last_epoch(layout):
    """The epoch of the checkpoint, which is replaced whole and so can be read at any time."""
    file = layout.work(VARIANT, 0) / "checkpoint.pt"
    return len(torch.load(file)["history"]) if file.exists() else 0


def kill_after(goal, study, layout, delay=0.0):
    """Train to an epoch's checkpoint and for a while beyond; returns the last epoch then."""
    process = start(train, study, VARIANT, 0, layout)
    while process.is_alive() and last_epoch(layout) < goal:
        time.sleep(0.01)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return last_epoch(layout)


def outcome(study, layout):
    score(study, VARIANT, 0, layout)
    run = layout.run(VARIANT, 0)
    files = (run / "model.safetensors", run / "history.csv", layout.predictions(VARIANT, 0))
    return [file.read_bytes() for file in files]


def test_a_run_killed_five_times_ends_as_an_undisturbed_one(long, layout):
    undisturbed, killed = (
        beside(layout, layout.results.parent / name) for name in ("undisturbed", "killed")
    )
    process = start(train, long, VARIANT, 0, undisturbed)
    process.join()
    assert process.exitcode == 0
    epoch = pd.read_csv(undisturbed.run(VARIANT, 0) / "timing.csv").seconds.median()

    moments, done = random.Random(7), 0
    for _ in range(KILLS):
        goal, delay = done + moments.randint(0, 1), moments.uniform(0, 2 * epoch)
        done = kill_after(goal, long, killed, delay)  # loading, training, validating or writing
        assert not (killed.run(VARIANT, 0) / "run.json").exists()
    assert done > 1, "the kills came after checkpoints"
    process = start(train, long, VARIANT, 0, killed)
    process.join()
    assert process.exitcode == 0
    assert outcome(long, killed) == outcome(long, undisturbed)


def _train_on_a_small_disk(study, layout, limit, answers):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        train(study, VARIANT, 0, layout)
    except StudyError as error:
        answers.put(str(error))


def test_a_full_disk_is_told_in_words_and_costs_no_finished_epoch(long, layout):
    before = kill_after(2, long, layout)
    answers = context.Queue()
    process = start(_train_on_a_small_disk, long, layout, 10_000, answers)
    process.join()
    message = answers.get(timeout=60)  # it lies there already, unless the process ended without
    assert "checkpoint.pt: cannot be written" in message and "Free space" in message
    assert last_epoch(layout) == before > 1
    files = {file.name for file in layout.work(VARIANT, 0).iterdir()}
    assert files == {"checkpoint.pt", ".lock"}
    assert not layout.run(VARIANT, 0).exists()


def test_a_second_process_is_told_that_the_run_is_taken(study, layout):
    with (
        sole_owner(layout.work(VARIANT, 0)),
        pytest.raises(StudyError, match="another process is training this run"),
    ):
        train(study, VARIANT, 0, layout)
