"""Several GPUs on one machine: each job takes one that no other job of this user has."""

import logging
import os
import subprocess
import tempfile
import time
from itertools import takewhile
from pathlib import Path

from filelock import FileLock, Timeout

from hybridlungvit.config import Compute
from hybridlungvit.io import StudyError

log = logging.getLogger(__name__)
_held: dict[Path, FileLock] = {}  # the system lets go when the process ends, however it does


def claim_gpu(compute: Compute) -> str | None:
    """Take a free GPU for this process, wait for one if need be, and return its name.

    CUDA_VISIBLE_DEVICES is narrowed to that GPU: call this before CUDA's first use. Returns None
    where there is nothing to choose: with compute.device 'cpu', and where no GPU is found. Raises
    ``StudyError`` when the folder of the locks cannot be written.
    """
    names = [] if compute.device == "cpu" else visible_gpus()
    if not names:
        return None
    folder = Path(tempfile.gettempdir()) / f"hybridlungvit-gpus-{os.getuid()}"
    waiting = False
    while True:
        for name in names:
            if _lock(folder / _lock_name(name)):
                os.environ["CUDA_VISIBLE_DEVICES"] = name
                log.info("computing on GPU %s", name)
                return name
        if not waiting:
            log.info("other jobs hold every GPU (%s); waiting for one", ", ".join(names))
            waiting = True
        time.sleep(0.5)


def visible_gpus() -> list[str]:
    """The GPUs this process may use, by the names that are the same for every process.

    Those of CUDA_VISIBLE_DEVICES if it is set (by the user or by Slurm), otherwise all that
    nvidia-smi lists. Numbers are nvidia-smi's; they become UUIDs, as the number of a GPU depends
    on what else a process sees.
    """
    known = _listed()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return list(known.values())
    entries = (entry.strip() for entry in chosen.split(","))
    names = takewhile(lambda entry: entry not in ("", "-1"), entries)  # as CUDA reads it
    return [known.get(name, name) for name in names]


def _listed() -> dict[str, str]:
    """The UUID of each GPU by its number; empty without nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = [line.split(",") for line in answer.stdout.splitlines() if "," in line]
    return {number.strip(): uuid.strip() for number, uuid in rows}


def _lock_name(name: str) -> str:
    """Names hold on the whole machine; a number without a UUID only within its Slurm job."""
    job = os.environ.get("SLURM_JOB_ID", "") if name.isdigit() else ""
    return f"{job}-{name}.lock".removeprefix("-").replace("/", "-")


def _lock(file: Path) -> bool:
    if file in _held:
        return True
    lock = FileLock(file, timeout=0)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        return False
    except OSError as error:
        raise StudyError(
            f"{file}: cannot be written ({error.strerror or error}). It keeps two jobs off one "
            "GPU; mend the permissions or set TMPDIR to another folder."
        ) from error
    _held[file] = lock
    return True
