"""Time and memory of the data stages as the number of images grows.

    python benchmarks/scale.py [--images 5000 10000 20000] [--output FILE.json]

Makes folders of small phantom radiographs, each file different, and measures the manifest, the
cache (128 px) and the AUC with its patient bootstrap. Each stage runs in a process of its own; the
peak memory is that of the largest process. 100,000 images need about 2.5 GB of disk for the time.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from hybridlungvit.config import Data
from hybridlungvit.data.cache import build_cache
from hybridlungvit.data.manifest import build_manifest, read_manifest
from hybridlungvit.data.phantom import render
from hybridlungvit.evaluation.bootstrap import auc_interval
from hybridlungvit.files import write_json
from hybridlungvit.paths import Layout

TEMPLATES = 200
MEDIAN_WIDTH, SIDE = 160, 128
TEST_SHARE = 0.2
RESAMPLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[5_000, 10_000, 20_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    templates = [jpeg(seed) for seed in range(TEMPLATES)]
    rows = []
    for count in args.images:
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            write_images(root / "images", count, templates)
            for stage in (manifest, cache, evaluation):
                seconds, peak = alone(stage, root, args.workers)
                rows.append(
                    {
                        "images": count, "stage": stage.__name__, "seconds": seconds,
                        "ms_per_image": seconds / count * 1e3, "peak_mb": peak,
                    }
                )  # fmt: skip
                print(f"{count} {stage.__name__}: {seconds:.1f} s, {peak:.0f} MB", file=sys.stderr)
    show(rows)
    if args.output:
        write_json(args.output, {"workers": args.workers, "rows": rows})


def jpeg(seed: int) -> bytes:
    image = render(seed, seed, "normal", contrast=1.0, median_width=MEDIAN_WIDTH).image
    return cv2.imencode(".jpeg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def write_images(root: Path, count: int, templates: list[bytes]) -> None:
    """Templates with a number in a JPEG comment: all files differ; patients have one or two."""
    tests = int(count * TEST_SHARE) // 3 * 3
    for row in range(count):
        side, person = ("test" if row < tests else "train"), row * 2 // 3
        sick = person % 4 != 0
        name = f"person{person}_virus_{row}" if sick else f"IM-{person:06d}-{row}"
        folder = root / side / ("PNEUMONIA" if sick else "NORMAL")
        if row < 10 or tests <= row < tests + 10:
            folder.mkdir(parents=True, exist_ok=True)
        template, number = templates[row % len(templates)], b"%012d" % row
        comment = b"\xff\xfe" + (len(number) + 2).to_bytes(2, "big") + number
        (folder / f"{name}.jpeg").write_bytes(template[:2] + comment + template[2:])


def manifest(root: Path, workers: int) -> None:
    data = Data(image_size=SIDE)
    build_manifest(root / "images", data, layout_in(root).manifest, workers)


def cache(root: Path, workers: int) -> None:
    build_cache(root / "images", layout_in(root), SIDE, workers)


def evaluation(root: Path, workers: int) -> None:
    """AUC of made-up scores with its interval; every image counts, as if it were a test image."""
    table = read_manifest(layout_in(root).manifest)
    scores = table.label + np.random.default_rng(0).normal(size=len(table))
    auc_interval(
        table.label.to_numpy(), scores.to_numpy(), table.patient.to_numpy(), resamples=RESAMPLES
    )


def layout_in(root: Path) -> Layout:
    return Layout("scale", results=root / "results")


def alone(stage: Callable[[Path, int], None], root: Path, workers: int) -> tuple[float, float]:
    """Seconds and peak MB of a stage in a fresh process and its children."""
    context = get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_measure, args=(stage, root, workers, answers))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{stage.__name__} failed")
    return answers.get()


def _measure(stage: Callable[[Path, int], None], root: Path, workers: int, answers: Any) -> None:
    start = time.perf_counter()
    stage(root, workers)
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(who).ru_maxrss for who in whose) * unit / 1e6
    answers.put((seconds, peak))


def show(rows: list[dict[str, Any]]) -> None:
    table = Table("images", "stage", "time", "per image", "peak memory", title="Growth")
    for row in rows:
        table.add_row(
            f"{row['images']:,}", row["stage"], f"{row['seconds']:.1f} s",
            f"{row['ms_per_image']:.2f} ms", f"{row['peak_mb']:.0f} MB",
        )  # fmt: skip
    Console(width=90).print(table)


if __name__ == "__main__":
    main()
