"""What the model and its training cost beside the bare timm stem.

    python benchmarks/training.py [--output FILE] [--skip-literal]

Every figure is a ratio of two things timed in turn in this process, the median of the rounds.
Images are random: their content does not change what is computed.
"""

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import timm
import torch
import torch.nn.functional as F
from report import REPEATS, Measure, arguments, median_ratio, show, timed_rounds
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hybridlungvit.config import Recipe, load_study
from hybridlungvit.data.cache import Cache
from hybridlungvit.model import build_model
from hybridlungvit.runtime import autocast, peak_memory_mb, prepare_device, start_logging
from hybridlungvit.training.frozen import FeatureStore
from hybridlungvit.training.trainer import Batch, Trainer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from literal import LiteralTokens  # noqa: E402 - the definition, which the tests compare with

SIDE = 224
TINY, BASE = "deit_tiny_patch16_224", "deit_base_patch16_224"
IMAGES = 128
CPU = torch.device("cpu")


def recipe_of(stem: str, batch: int, lambda_seg: float = 0.0) -> Recipe:
    """The CPU study's recipe at 224 px with random weights."""
    recipe = load_study(ROOT / "config" / "kermany-cpu.yaml").recipe("no_seg")
    training = {"batch_size": batch, "lambda_seg": lambda_seg, "freeze_epochs": 0}
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"image_size": SIDE}),
            "model": recipe.model.model_copy(update={"stem": stem, "pretrained": False}),
            "training": recipe.training.model_copy(update=training),
        }
    )


def random_cache(folder: Path) -> tuple[Cache, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A cache of noise on disk, mapped into memory as a real one is; two lungs as masks."""
    rng = np.random.default_rng(0)
    np.save(folder / "images.npy", rng.integers(0, 256, (IMAGES, SIDE, SIDE), np.uint8))
    masks = np.zeros((IMAGES, SIDE, SIDE), bool)
    for mask, shift in zip(masks, rng.integers(-15, 16, IMAGES), strict=True):
        mask[50:170, 40 + shift : 100 + shift] = mask[50:170, 120 + shift : 180 + shift] = True
    packed = np.packbits(masks.reshape(IMAGES, -1), axis=1)
    cache = Cache(np.load(folder / "images.npy", mmap_mode="r"), packed)
    rows = {"train": np.arange(IMAGES), "val": np.arange(8)}
    labels = {"train": np.arange(IMAGES) % 2, "val": np.arange(8) % 2}
    return cache, rows, labels


def ready(
    recipe: Recipe, cache: Cache, rows: dict, labels: dict, literal: bool, device=CPU, store=None
) -> Trainer:
    """A trainer before its first epoch, the tokens fused or in the literal form."""
    torch.manual_seed(0)
    model = build_model(recipe, pretrained=False).to(device)
    if literal:
        model.tokens = LiteralTokens(recipe.model.map_size, SIDE, recipe.model.token_grid)
    return Trainer(recipe, 0, device, model, cache, rows, labels, store)


def own_step(trainer: Trainer) -> Callable[[], object]:
    """One training step of ours on a batch that is ready."""
    trainer.start_epoch(0)
    batch = next(trainer.batches(0))
    return lambda: trainer.step(batch)


def bare_step(stem: str, batch: Batch, device: torch.device = CPU) -> Callable[[], object]:
    """One training step of timm's own model with its linear head."""
    model = timm.create_model(stem, num_classes=2, img_size=SIDE).train().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        with autocast(device, True):
            logits = model(batch.inputs)
        loss = F.cross_entropy(logits.float(), batch.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def operations(action: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        action()
    return counter.get_total_flops()


def throughput(stem: str, size: int, lambda_seg: float, target: float, data: tuple) -> Measure:
    trainer = ready(recipe_of(stem, size, lambda_seg), *data, literal=False)
    actions = {"own": own_step(trainer), "bare": bare_step(stem, next(trainer.batches(0)))}
    bound = operations(actions["bare"]) / operations(actions["own"])
    seconds = timed_rounds(actions, 2 * REPEATS)
    what = f", λ_seg {lambda_seg}" if lambda_seg else ""
    speed = size / statistics.median(seconds["own"])
    return Measure(
        f"training throughput, hybrid ÷ bare stem ({stem}, batch {size}{what})",
        median_ratio(seconds["bare"], seconds["own"]),
        target, True, bound, f"{speed:.1f} images/s",
    )  # fmt: skip


def against_literal(data: tuple) -> Measure:
    """The bound is what a head without cost would reach: literal path ÷ bare stem, in time."""
    trainer = ready(recipe_of(TINY, 16), *data, literal=False)
    actions = {
        "own": own_step(trainer),
        "literal": own_step(ready(trainer.recipe, *data, literal=True)),
        "bare": bare_step(TINY, next(trainer.batches(0))),
    }
    seconds = timed_rounds(actions)
    return Measure(
        "training throughput, hybrid ÷ literal path (DeiT-Tiny, batch 16)",
        median_ratio(seconds["literal"], seconds["own"]), 15, True,
        median_ratio(seconds["literal"], seconds["bare"]),
        f"literal {16 / statistics.median(seconds['literal']):.2f} images/s",
    )  # fmt: skip


def lung_pooling(data: tuple) -> Measure:
    """Tokens of lung pixels only beside tokens of a whole side."""
    side = recipe_of(TINY, 16)
    lung = side.model_copy(update={"model": side.model.model_copy(update={"pooling": "lung"})})
    recipes = {"side": side, "lung": lung}
    actions = {name: own_step(ready(r, *data, literal=False)) for name, r in recipes.items()}
    seconds = timed_rounds(actions, 2 * REPEATS)
    name = "training throughput, lung pooling ÷ side pooling (DeiT-Tiny, batch 16)"
    return Measure(name, median_ratio(seconds["side"], seconds["lung"]), 0.97, True)


def _step_memory(kind: str, folder: str) -> float:
    """Peak memory of three training steps above what was resident before the model, in MiB."""
    data = random_cache(Path(folder))
    recipe = recipe_of(TINY, 16)
    batch = next(ready(recipe, *data, literal=False).batches(0))
    before = psutil.Process().memory_info().rss / 2**20
    if kind == "bare":
        step = bare_step(TINY, batch)
    else:
        trainer = ready(recipe, *data, literal=False)
        trainer.start_epoch(0)
        step = lambda: trainer.step(batch)  # noqa: E731
    for _ in range(3):
        step()
    return peak_memory_mb(CPU) - before


def memory(folder: Path) -> Measure:
    peaks: dict[str, list[float]] = {"hybrid": [], "bare": []}
    for _, kind in itertools.product(range(REPEATS), peaks):
        with get_context("spawn").Pool(1) as pool:  # a process of its own: peaks never fall
            peaks[kind].append(pool.apply(_step_memory, (kind, str(folder))))
    medians = {kind: statistics.median(values) for kind, values in peaks.items()}
    note = f"{medians['hybrid']:.0f} and {medians['bare']:.0f} MiB"
    name = "peak memory of the step, hybrid ÷ bare stem (DeiT-Tiny, batch 16)"
    return Measure(name, median_ratio(peaks["hybrid"], peaks["bare"]), 1.15, False, note=note)


def frozen_epoch(data: tuple) -> Measure:
    recipe = recipe_of(TINY, 16)
    frozen = recipe.training.model_copy(update={"freeze_epochs": "all"})
    trainer = ready(recipe.model_copy(update={"training": frozen}), *data, literal=False)
    stem = timm.create_model(TINY, num_classes=0, img_size=SIDE).eval()
    inputs = [batch.inputs for batch in trainer.batches(0)]

    @torch.inference_mode()
    def infer() -> None:
        for part in inputs:
            stem.forward_features(part)

    actions = {"epoch": lambda: trainer.run_epoch(0), "inference": infer}
    bound = operations(actions["epoch"]) / operations(infer)
    seconds = timed_rounds(actions)
    return Measure(
        "a frozen epoch ÷ inference of the bare stem (DeiT-Tiny)",
        median_ratio(seconds["epoch"], seconds["inference"]), 1.30, False, bound,
    )  # fmt: skip


def stored_features(data: tuple, folder: Path) -> Measure:
    """A head on a frozen stem of the size of the study that stores its features."""
    recipe = load_study(ROOT / "config" / "kermany-frozen.yaml").recipe("no_seg")
    recipe = recipe.model_copy(
        update={"model": recipe.model.model_copy(update={"pretrained": False})}
    )
    with_stem = ready(recipe, *data, literal=False)
    stem, views = with_stem.model.stem, recipe.training.frozen_views
    tokens = 1 + stem.grid[0] * stem.grid[1]
    rng = np.random.default_rng(0)
    values = rng.standard_normal((IMAGES, views, tokens, stem.dim), np.float32)
    np.save(folder / "moved.npy", values.astype(np.float16))
    moved = np.load(folder / "moved.npy", mmap_mode="r")
    affine = np.broadcast_to(np.eye(2, 3, dtype=np.float32), (IMAGES, views, 2, 3))
    store = FeatureStore(moved[:, :0], moved, affine, np.arange(IMAGES))
    stored = ready(recipe, *data, literal=False, store=store)
    actions = {"stem": lambda: with_stem.run_epoch(0), "stored": lambda: stored.run_epoch(0)}
    seconds = timed_rounds(actions)
    return Measure(
        "an epoch of a head, with its frozen stem ÷ from stored features (ViT-S/14, batch 64)",
        median_ratio(seconds["stem"], seconds["stored"]), 20, True,
        note=f"{IMAGES / statistics.median(seconds['stored']):.0f} images/s from features",
    )  # fmt: skip


def waiting(data: tuple) -> Measure:
    trainer = ready(recipe_of(TINY, 16), *data, literal=False)
    trainer.start_epoch(0)
    shares, waits = [], []
    for _ in range(REPEATS):
        batches, wait, work = trainer.batches(0), 0.0, 0.0
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            wait += time.perf_counter() - start
            if batch is None:
                break
            start = time.perf_counter()
            trainer.step(batch)
            work += time.perf_counter() - start
        shares.append(wait / (wait + work))
        waits.append(wait)
    return Measure(
        "time a step waits for its batch ÷ step time (DeiT-Tiny, batch 16)",
        statistics.median(shares), 0.03, False,
        note=f"{1e3 * statistics.median(waits) / (IMAGES / 16):.0f} ms a batch",
    )  # fmt: skip


def scaling(data: tuple) -> Measure:
    trainer = ready(recipe_of(TINY, 16), *data, literal=False)
    batch = next(trainer.batches(0))
    model: nn.Module = trainer.model.eval()
    masks: Tensor = batch.masks

    @torch.inference_mode()
    def infer(threads: int) -> None:
        torch.set_num_threads(threads)
        for _ in range(4):
            model(batch.inputs, masks)

    seconds = timed_rounds({"one": lambda: infer(1), "two": lambda: infer(2)})
    torch.set_num_threads(2)
    name = "inference on two threads ÷ on one (DeiT-Tiny, batch 16)"
    return Measure(name, median_ratio(seconds["one"], seconds["two"]), 1.7, True)


def measure_all(literal: bool) -> list[Measure]:
    prepare_device(recipe_of(TINY, 16).compute)
    with tempfile.TemporaryDirectory() as name:
        data = random_cache(Path(name))
        measures = [
            throughput(TINY, 16, 0.0, 0.90, data),
            throughput(TINY, 16, 0.1, 0.80, data),
            throughput(BASE, 4, 0.0, 0.97, data),
            *([against_literal(data)] if literal else []),
            lung_pooling(data),
            memory(Path(name)),
            frozen_epoch(data),
            stored_features(data, Path(name)),
            waiting(data),
            scaling(data),
        ]
    return measures


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--skip-literal", action="store_true", help="leave out the slowest row")
    options = parser.parse_args()
    start_logging()
    show("Training", measure_all(not options.skip_literal), options.output)


if __name__ == "__main__":
    main()
