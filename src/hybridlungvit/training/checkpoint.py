"""The checkpoint of a run under way: one file, whole or absent."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from hybridlungvit.io import StudyError, remove_leftovers, replacing, telling
from hybridlungvit.runtime import out_of_memory

log = logging.getLogger(__name__)
HASH = re.compile(r"^([0-9a-f]{12})[0-9a-f]{52}$")


def save_checkpoint(file: Path, state: dict[str, Any], parts: Mapping[str, Any]) -> None:
    """Write ``state`` and that of ``parts`` (model, optimizer, …) in place of the earlier file.

    Raises ``StudyError`` when the disk refuses; the earlier checkpoint then stays.
    """
    with replacing(file) as temporary:
        try:
            torch.save(state | {name: part.state_dict() for name, part in parts.items()}, temporary)
        except RuntimeError as error:  # torch's name for a full disk
            raise OSError(str(error)) from error


def load_checkpoint(
    file: Path, key: dict[str, str], parts: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The state in ``file``, or None when there is none; ``parts`` are brought to theirs.

    Raises ``StudyError`` for a damaged checkpoint, and for one whose key is not ``key``: starting
    anew beside it would waste its epochs without a word. The message names what differs.
    """
    remove_leftovers(file)
    if not file.exists():
        return None
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        differences = _differences(state["key"], key)
        for name, part in parts.items() if not differences else ():
            part.load_state_dict(state.pop(name))
    except Exception as error:  # pickle, zip, key and shape errors share no base class
        if out_of_memory(error):
            raise
        raise StudyError(
            f"{file}: damaged checkpoint ({error}). Delete this file to train from the start."
        ) from error
    if differences:
        raise StudyError(
            f"{file}: this unfinished training cannot go on, as it began otherwise: "
            f"{'; '.join(differences)}. Restore that, or delete this file to train from the start."
        )
    return state


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
    with telling(folder, "written"):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise StudyError(
            f"{folder}: another process is training this run. Wait for it, or stop it and run "
            "this again; it resumes."
        ) from None
    except KeyboardInterrupt:
        log.warning("interrupted; run the same command again to resume from %s", folder)
        raise
