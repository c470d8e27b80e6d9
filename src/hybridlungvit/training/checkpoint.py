"""Checkpoints of a run under way: one folder an epoch, complete or absent."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hybridlungvit.io import StudyError

Weights = dict[str, Tensor]
HASH = re.compile(r"^([0-9a-f]{12})[0-9a-f]{52}$")


def save_checkpoint(folder: Path, state: dict[str, Any], model: Weights, best: Weights) -> None:
    """Write ``folder/epoch-NNNN`` whole, then drop the older ones.

    Raises ``StudyError`` when the disk refuses; the previous checkpoint then stays.
    """
    final = folder / f"epoch-{state['epoch']:04d}"
    draft = folder / f".{final.name}"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        save_file(model, draft / "model.safetensors")
        save_file(best, draft / "best.safetensors")
        torch.save(state, draft / "state.pt")
        for file in draft.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
    # A full disk: torch and safetensors each have their own name for it.
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise StudyError(
            f"{final}: the checkpoint cannot be written ({error}). "
            "Free space and run the same command again; it resumes from the epoch before."
        ) from error
    for old in folder.glob("epoch-*"):
        if old != final:
            shutil.rmtree(old)


def load_checkpoint(
    folder: Path, key: dict[str, str]
) -> tuple[dict[str, Any], Weights, Weights] | None:
    """The latest (state, model weights, best weights) in ``folder``, or None when there is none.

    Raises ``StudyError`` for a damaged checkpoint, and for one whose key is not ``key``: starting
    anew beside it would waste its epochs without a word. The message names what differs.
    """
    folders = sorted(folder.glob("epoch-*"))
    if not folders:
        return None
    latest = folders[-1]
    try:
        state = torch.load(latest / "state.pt", map_location="cpu", weights_only=True)
        model = load_file(latest / "model.safetensors")
        best = load_file(latest / "best.safetensors")
        differences = _differences(state["key"], key)
    except Exception as error:  # pickle, zip, key and safetensors errors share no base class
        raise StudyError(
            f"{latest}: damaged checkpoint ({error}). Delete this folder to train from the start."
        ) from error
    if differences:
        raise StudyError(
            f"{latest}: this unfinished training cannot go on, as it began otherwise: "
            f"{'; '.join(differences)}. Restore that, or delete {folder} to train from the start."
        )
    return state, model, best


def _differences(there: dict[str, str], here: dict[str, str]) -> list[str]:
    """The parts of two keys that differ, with both values; of hashes the first digits."""
    differences = []
    for name in there | here:
        before, now = (HASH.sub(r"\1", part.get(name, "none")) for part in (there, here))
        if there.get(name) != here.get(name):
            differences.append(f"{name} {before} there, {now} here")
    return differences


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; the system lets go when the process ends, however it does.

    Raises ``StudyError`` when another process holds it: two writers would spoil each other's run.
    """
    lock = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise StudyError(
            f"{folder}: another process is training this run. Wait for it, or stop it and run "
            "this again; it resumes."
        ) from None
    except OSError as error:
        raise StudyError(
            f"{folder}: cannot be written ({error.strerror or error}). "
            "Free space or mend the permissions and run again."
        ) from error
