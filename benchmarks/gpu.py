"""What training costs on a GPU: beside the bare stem, beside its peak, and waiting for data.

    python benchmarks/gpu.py [--output FILE] [--peak TFLOPS]

Without a GPU it says so and measures nothing. --peak is what the vendor states for dense products
in half precision; without it no share of the peak is given.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from report import Measure, arguments, median_ratio, show
from training import (
    BASE,
    IMAGES,
    TINY,
    bare_step,
    operations,
    own_step,
    random_cache,
    ready,
    recipe_of,
)  # fmt: skip

from hybridlungvit.gpus import claim_gpu
from hybridlungvit.io import StudyError
from hybridlungvit.runtime import device_name, prepare_device, start_logging
from hybridlungvit.training.checkpoint import load_checkpoint, save_checkpoint
from hybridlungvit.training.trainer import Trainer

ROUNDS, STEPS = 7, 20
TRAINING_IMAGES = 4_700  # of the full study, less its validation images
GPU = torch.device("cuda")


def timed(step) -> float:
    """Seconds of a step, over ``STEPS`` of them that nothing waits for."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / STEPS


def throughput(size: int, data: tuple, peak: float | None) -> list[Measure]:
    """Training steps of DeiT-Base: hybrid beside bare stem, images a second, share of the peak."""
    trainer = ready(recipe_of(BASE, size), *data, literal=False, device=GPU)
    batch = next(trainer.batches(0))
    actions = {"own": own_step(trainer), "bare": bare_step(BASE, batch, GPU)}
    seconds = {name: [] for name in actions}
    for step in actions.values():
        timed(step)
    for _ in range(ROUNDS):
        for name, step in actions.items():
            seconds[name].append(timed(step))
    speed = size / statistics.median(seconds["own"])
    torch.cuda.reset_peak_memory_stats()
    timed(actions["own"])
    memory = torch.cuda.max_memory_allocated() / 2**30
    note = f"{speed:.0f} images/s, {memory:.1f} GiB at most"
    name = f"training throughput on the GPU, hybrid ÷ bare stem (DeiT-Base, batch {size})"
    measures = [Measure(name, median_ratio(seconds["bare"], seconds["own"]), 0.95, True, note=note)]
    if peak is not None:
        rate = operations(actions["own"]) / statistics.median(seconds["own"]) / 1e12
        name = f"share of the GPU's peak (DeiT-Base, batch {size})"
        measures.append(Measure(name, rate / peak, 0.3, True, note=f"{rate:.0f} TFLOP/s"))
    return measures


def waiting(data: tuple) -> Measure:
    """How much longer an epoch takes with its data than the same steps on one batch."""
    trainer = ready(recipe_of(BASE, 16), *data, literal=False, device=GPU)
    step = own_step(trainer)
    trainer.run_epoch(0)
    shares = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        trainer.run_epoch(0)
        torch.cuda.synchronize()
        whole = time.perf_counter() - start
        shares.append(max(0.0, 1 - timed(step) * IMAGES / 16 / whole))
    epoch = whole * TRAINING_IMAGES / IMAGES
    note = f"an epoch of the full study takes {epoch:.0f} s"
    name = "time waiting for data ÷ time of an epoch (DeiT-Base, batch 16)"
    return Measure(name, statistics.median(shares), 0.02, False, note=note)


def resumed(data: tuple, folder: Path, device: torch.device = GPU) -> Measure:
    """Whether two epochs, interrupted between, give the weights of two without a break: 1 if so."""
    recipe = recipe_of(TINY, 16)

    def begun() -> tuple[Trainer, dict[str, Any]]:
        trainer = ready(recipe, *data, literal=False, device=device)
        return trainer, {n: getattr(trainer, n) for n in ("model", "optimizer", "scaler")}

    whole, parts = begun()
    whole.run_epoch(0)
    save_checkpoint(folder / "checkpoint.pt", {"key": {}}, parts)
    whole.run_epoch(1)
    other, parts = begun()
    start = time.perf_counter()
    load_checkpoint(folder / "checkpoint.pt", {}, parts)
    note = f"{time.perf_counter() - start:.1f} s to read the checkpoint"
    other.run_epoch(1)
    pairs = zip(whole.model.parameters(), other.model.parameters(), strict=True)
    alike = all(torch.equal(*pair) for pair in pairs)
    name = "a resumed run has the weights of an uninterrupted one (DeiT-Tiny)"
    return Measure(name, float(alike), 1, True, note=note)


def second_job() -> Measure:
    """Whether a second job waits for the GPU that this one holds: 1 if it does."""
    code = (
        "from hybridlungvit.config import Compute\nfrom hybridlungvit.gpus import claim_gpu\n"
        "claim_gpu(Compute())"
    )
    try:
        subprocess.run([sys.executable, "-c", code], timeout=20, check=True)
    except subprocess.TimeoutExpired:
        return Measure("a second job waits for the GPU", 1, 1, True)
    return Measure("a second job waits for the GPU", 0, 1, True)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--peak", type=float, help="TFLOP/s in half precision, by the vendor")
    options = parser.parse_args()
    start_logging()
    recipe = recipe_of(BASE, 16)
    compute = recipe.compute.model_copy(update={"device": "cuda"})
    claim_gpu(compute)
    try:
        prepare_device(compute)
    except StudyError as error:
        print(f"{error} This section stays unmeasured.")
        if options.output is not None:
            show("No GPU", [], options.output)
        return
    with tempfile.TemporaryDirectory() as folder:
        data = random_cache(Path(folder))
        measures = [m for size in (16, 64) for m in throughput(size, data, options.peak)]
        measures += [waiting(data), resumed(data, Path(folder)), second_job()]
    show(f"Training on {device_name(GPU)}", measures, options.output)


if __name__ == "__main__":
    main()
