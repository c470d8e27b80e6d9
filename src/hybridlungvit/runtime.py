"""How a job runs: device, threads and determinism, processes, and progress."""

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import track as rich_track

from hybridlungvit.config import Compute
from hybridlungvit.io import StudyError

if TYPE_CHECKING:
    import torch  # takes seconds to import, and most commands compute with no model

log = logging.getLogger(__name__)


def prepare_device(compute: Compute) -> "torch.device":
    """Fix threads and deterministic kernels, and return the device to compute on.

    Raises ``StudyError`` when the config asks for a GPU that is not there.
    """
    import torch

    # cuBLAS is deterministic only with a fixed workspace; harmless without a GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(compute.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # No kernel here reads memory it has not written; filling it first costs about 5 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    available = torch.cuda.is_available()
    if compute.device == "cuda" and not available:
        raise StudyError(
            "compute.device: 'cuda' asked for, but torch finds no GPU. Use 'auto' or 'cpu'."
        )
    return torch.device("cuda" if available and compute.device != "cpu" else "cpu")


def autocast(device: "torch.device", wanted: bool) -> AbstractContextManager[None]:
    """Mixed precision where it pays: on a GPU, when the config allows it."""
    import torch

    enabled = wanted and device.type == "cuda"
    return torch.autocast(device.type, mixed_dtype(device) if enabled else None, enabled)


@contextmanager
def flushing_subnormals() -> Iterator[None]:
    """Floats too small for full precision (below 1e-38 in float32) are zero here, where possible.

    They come as a model is fitted, and some processors compute with them slowly: without this, late
    epochs of a head on stored features took twice as long as the first.
    """
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def mixed_dtype(device: "torch.device") -> "torch.dtype":
    """The half precision of a GPU: bfloat16, whose range is float32's, where it has that."""
    import torch

    known = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if known else torch.float16


def peak_memory_mb(device: "torch.device") -> float:
    """The most memory this process has held so far, in MiB: on the GPU, or resident."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource  # which Windows lacks

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere


def device_name(device: "torch.device") -> str:
    """The GPU's or processor's own name, for the records."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "CPU"
    named = re.search(r"^model name\s*: *(.+?) *$", text, re.MULTILINE)
    return named[1] if named else "CPU"


Item = TypeVar("Item")


def out_of_memory(error: Exception) -> bool:
    """Whether numpy or torch ran out of memory, on a GPU or not; torch need not be imported."""
    named = type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
    return named or "allocate memory" in str(error)


def start_logging() -> None:
    """Send INFO and above to stderr: rich in a terminal, plain dated lines in a file."""
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(console=Console(stderr=True), show_path=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("matplotlib", "fontTools", "PIL", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


PATIENCE = 2.0  # seconds of silence that nobody minds


def track(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Yield ``items`` while showing how far along they are.

    In a log that is every tenth, but nothing before ``PATIENCE`` seconds have passed.
    """
    if sys.stderr.isatty():
        yield from rich_track(items, description, total=total, console=Console(stderr=True))
        return
    start, reported = time.monotonic(), 0
    for done, item in enumerate(items, 1):
        yield item
        passed = time.monotonic() - start
        if done * 10 // total > reported and passed > PATIENCE:
            reported = done * 10 // total
            left = passed / done * (total - done)
            log.info("%s: %d of %d, %.0f s left", description, done, total, left)


def _start_worker() -> None:
    """One OpenCV thread, and an end with the parent: killed, it could not tell its workers."""
    from cv2 import setNumThreads

    setNumThreads(1)
    parent = parent_process()
    assert parent is not None  # this runs in processes that multiprocessing started
    Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def each_in_processes(
    work: Callable[..., Item], *columns: Any, workers: int, description: str
) -> Iterator[Item]:
    """Yield ``work`` of each row of the columns, in order, while showing progress.

    With one worker in this process: another would only cost its start. Raises ``StudyError`` when a
    process dies, besides what ``work`` raises.
    """
    # An environment that only reads manifests has no OpenCV.
    from cv2 import getNumThreads, setNumThreads

    if workers == 1:
        threads = getNumThreads()
        setNumThreads(1)
        try:
            yield from track(map(work, *columns), len(columns[0]), description)
        finally:
            setNumThreads(threads)
        return
    # A fork would inherit OpenCV's locks without the threads that hold them.
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker) as pool:
        try:
            results = pool.map(work, *columns, chunksize=16)
            yield from track(results, len(columns[0]), description)
        except BrokenProcessPool:
            raise StudyError(
                f"{description}: a process was ended from outside, most likely for lack of memory. "
                "Use fewer processes: --workers, or snakemake --cores."
            ) from None
