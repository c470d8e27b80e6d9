"""What the cache costs and what it saves, on native-size JPEG files.

    python benchmarks/data.py [--data FOLDER] [--output FILE.json]

Without a folder, phantoms of the real images' sizes are generated. Three questions; each time is
the median of several repeats, in turns, so that both sides see the same load:

- building: time to build the cache (read, hash, decode, mask, write) over time to only `cv2.imread`
  the same files in as many processes; both include starting the processes;
- input: time to decode each file of an epoch and compute its mask, over time to only fetch images
  and masks from the cache in shuffled batches (one process, no augmentation on either side);
- loss: difference in grey values between the cached image, which libjpeg shrinks while decoding,
  and the whole image shrunk by OpenCV with INTER_AREA; overlap (intersection over union) of the
  masks made from either.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from hybridlungvit.data.cache import build_cache, open_cache, prepare_image
from hybridlungvit.data.decode import inspect_image, read_bytes
from hybridlungvit.data.manifest import COLUMNS, read_manifest
from hybridlungvit.io import write_json, write_text
from hybridlungvit.masks.fit import lung_mask
from hybridlungvit.paths import Layout
from hybridlungvit.phantom import write_dataset
from hybridlungvit.runtime import each_in_processes

BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder searched for JPEG files")
    parser.add_argument("--images", type=int, default=600, help="files a repeat; repeated if fewer")
    parser.add_argument("--side", type=int, default=224, help="of the cached images, in pixels")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        root = args.data or make_phantoms(Path(scratch) / "phantoms", args.workers)
        layout = Layout("benchmark", results=Path(scratch) / "results")
        table = write_manifest(root, layout, args.images)
        figures = {
            "images": len(table),
            "files": int(table.path.nunique()),
            "median_width": float(table.width.median()),
            "median_height": float(table.height.median()),
            "side": args.side,
            "workers": args.workers,
            "repeats": args.repeats,
            "building": building(root, layout, table, args),
            "input": epoch_input(root, layout, args),
            "loss": loss(root, table, args.side),
        }
    show(figures)
    if args.output:
        write_json(args.output, figures)


def make_phantoms(root: Path, workers: int) -> Path:
    write_dataset(
        root, train_images=100, test_images=20, contrast=1.0, median_width=1300, seed=0,
        workers=workers,
    )  # fmt: skip
    return root


def write_manifest(root: Path, layout: Layout, count: int) -> pd.DataFrame:
    """A manifest of ``count`` rows; the classes and splits in it mean nothing."""
    files = sorted(path for path in root.rglob("*.jp*g"))
    if not files:
        raise SystemExit(f"{root}: holds no JPEG file")
    facts = {file: inspect_image(file) for file in files}
    rows = [
        (
            file.relative_to(root).as_posix(),
            facts[file][0],
            0,
            "normal",
            "p",
            "train",
            *facts[file][1:],
        )
        for file in itertools.islice(itertools.cycle(files), count)
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    write_text(layout.manifest, table.to_csv(index=False))
    return table


def in_turns(repeats: int, **sides: Callable[[], Any]) -> dict[str, list[float]]:
    """Seconds of each side, one after the other in each repeat.

    Not ``report.timed_rounds``: report loads torch, and every process started here would load it
    too, which is seconds of what is being timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, work in sides.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def read_only(root: Path, path: str) -> None:
    cv2.imread(str(root / path))


def nothing(path: str) -> None:
    pass


def building(
    root: Path, layout: Layout, table: pd.DataFrame, args: argparse.Namespace
) -> dict[str, Any]:
    def spread(work: Callable[..., Any], paths: pd.Series) -> list[Any]:
        name = "reading"
        return list(each_in_processes(work, paths, workers=args.workers, description=name))

    seconds = in_turns(
        args.repeats,
        cache=lambda: build_cache(root, layout, args.side, args.workers),
        read=lambda: spread(partial(read_only, root), table.path),
        start=lambda: spread(nothing, table.path[:1]),
    )
    median = {name: statistics.median(values) for name, values in seconds.items()}
    pairs = zip(seconds["cache"], seconds["read"], strict=True)
    return {
        "seconds": median,
        "ratio": statistics.median(a / b for a, b in pairs),
        "ratio_without_start": (median["cache"] - median["start"])
        / (median["read"] - median["start"]),
    }


def epoch_input(root: Path, layout: Layout, args: argparse.Namespace) -> dict[str, Any]:
    manifest = read_manifest(layout.manifest)
    cache = open_cache(layout, manifest, args.side)
    rows = np.random.default_rng(0).permutation(len(manifest))
    batches = np.array_split(rows, max(1, len(rows) // BATCH))
    few = manifest.path[rows[: len(rows) // 4]]  # this side is slow, and its images alike

    def fetch() -> None:
        for batch in batches:
            np.array(cache.images[batch])
            cache.masks(batch)

    def decode() -> None:
        for path in few:
            prepare_image(read_bytes(root / path), root / path, args.side)

    seconds = in_turns(args.repeats, cache=fetch, decode=decode)
    cached = [value / len(rows) * 1e3 for value in seconds["cache"]]
    decoded = [value / len(few) * 1e3 for value in seconds["decode"]]
    return {
        "cache_ms": statistics.median(cached),
        "decode_ms": statistics.median(decoded),
        "ratio": statistics.median(b / a for a, b in zip(cached, decoded, strict=True)),
    }


def loss(root: Path, table: pd.DataFrame, side: int) -> dict[str, float]:
    differences, overlaps = [], []
    for path in table.path.unique():
        file = root / path
        image, mask, *_ = prepare_image(read_bytes(file), file, side)
        whole = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        plain = cv2.resize(whole, (side, side), interpolation=cv2.INTER_AREA)
        drawn = lung_mask(whole).view(np.uint8) * 255
        plain_mask = cv2.resize(drawn, (side, side), interpolation=cv2.INTER_AREA) > 127
        differences.append(np.abs(image.astype(int) - plain))
        overlaps.append((mask & plain_mask).sum() / (mask | plain_mask).sum())
    differences = np.stack(differences)
    return {
        "mean_difference": float(differences.mean()),
        "difference_99th_percentile": float(np.percentile(differences, 99)),
        "psnr_db": float(10 * np.log10(255**2 / np.square(differences).mean())),
        "mask_overlap_mean": float(np.mean(overlaps)),
        "mask_overlap_lowest": float(min(overlaps)),
    }


def show(figures: dict[str, Any]) -> None:
    build, feed, lost = figures["building"], figures["input"], figures["loss"]
    size = f"{figures['median_width']:.0f}×{figures['median_height']:.0f} px"
    title = f"{figures['images']} JPEG files, median {size}, cached at {figures['side']} px"
    table = Table("question", "this", "compared with", "ratio", title=title)
    seconds = build["seconds"]
    table.add_row(
        f"building, {figures['workers']} processes", f"{seconds['cache']:.2f} s",
        f"imread {seconds['read']:.2f} s", f"{build['ratio']:.2f}",
    )  # fmt: skip
    table.add_row(
        "the same without their start", f"{seconds['cache'] - seconds['start']:.2f} s",
        f"imread {seconds['read'] - seconds['start']:.2f} s",
        f"{build['ratio_without_start']:.2f}",
    )  # fmt: skip
    table.add_row(
        "input of an epoch, per image", f"cache {feed['cache_ms']:.3f} ms",
        f"decode and mask {feed['decode_ms']:.2f} ms", f"{feed['ratio']:.0f}",
    )  # fmt: skip
    table.add_row(
        "grey value difference", f"mean {lost['mean_difference']:.2f}",
        f"99 % below {lost['difference_99th_percentile']:.0f} of 255",
        f"{lost['psnr_db']:.1f} dB",
    )  # fmt: skip
    table.add_row(
        "mask overlap (IoU)", f"mean {lost['mask_overlap_mean']:.3f}",
        f"lowest {lost['mask_overlap_lowest']:.3f}", "",
    )  # fmt: skip
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
