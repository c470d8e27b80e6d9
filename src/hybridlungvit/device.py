"""Where to compute and how: the one place that knows about GPUs, threads and determinism."""

import os
import resource
import sys
from contextlib import AbstractContextManager

import torch

from hybridlungvit.config import Compute
from hybridlungvit.errors import StudyError


def prepare_device(compute: Compute) -> torch.device:
    """Fix threads and deterministic kernels, and return the device to compute on.

    Raises ``StudyError`` when the config asks for a GPU that is not there.
    """
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


def autocast(device: torch.device, wanted: bool) -> AbstractContextManager[None]:
    """Mixed precision where it pays: on a GPU, when the config allows it."""
    return torch.autocast(device.type, enabled=wanted and device.type == "cuda")


def peak_memory_mb(device: torch.device) -> float:
    """The most memory this process has held so far, in MiB: on the GPU, or resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere


def device_name(device: torch.device) -> str:
    """The GPU's or processor's own name, for the records."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a kernel interface
            names = [
                line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
            ]
        return names[0]
    except (OSError, IndexError):
        return "CPU"
