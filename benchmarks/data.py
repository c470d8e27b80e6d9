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

import itertools
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from report import REPEATS, Measure, arguments, median_ratio, show, timed_rounds

from hybridlungvit.config import Phantom
from hybridlungvit.data.cache import build_cache, open_cache, prepare_image
from hybridlungvit.data.decode import inspect_image, read_bytes
from hybridlungvit.data.manifest import COLUMNS, read_manifest
from hybridlungvit.io import write_text
from hybridlungvit.masks.fit import lung_mask
from hybridlungvit.paths import Layout
from hybridlungvit.phantom import write_dataset
from hybridlungvit.runtime import each_in_processes

BATCH = 16


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, help="folder searched for JPEG files")
    parser.add_argument("--images", type=int, default=600, help="files a repeat; repeated if fewer")
    parser.add_argument("--side", type=int, default=224, help="of the cached images, in pixels")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    side, repeats = options.side, options.repeats
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        root = options.data or make_phantoms(Path(scratch) / "phantoms", options.workers)
        layout = Layout("benchmark", results=Path(scratch) / "results")
        table = write_manifest(root, layout, options.images)
        built = building(root, layout, table, side, options.workers, repeats)
        measures = [epoch_input(root, layout, side, repeats), *built]
    size = f"median {table.width.median():.0f}×{table.height.median():.0f} px"
    show(f"{len(table)} JPEG files, {size}, cached at {side} px", measures, options.output)


def make_phantoms(root: Path, workers: int) -> Path:
    write_dataset(root, Phantom(train_images=100, test_images=20, median_width=1300), workers)
    return root


def write_manifest(root: Path, layout: Layout, count: int) -> pd.DataFrame:
    """A manifest of ``count`` rows; the classes and splits in it mean nothing."""
    files = sorted(path for path in root.rglob("*.jp*g"))
    if not files:
        raise SystemExit(f"{root}: holds no JPEG file")
    facts = {file: inspect_image(file) for file in files}
    rows = []
    for file in itertools.islice(itertools.cycle(files), count):
        sha256, *others = facts[file]
        path = file.relative_to(root).as_posix()
        rows.append((path, sha256, 0, "normal", "p", "train", *others))
    table = pd.DataFrame(rows, columns=COLUMNS)
    write_text(layout.manifest, table.to_csv(index=False))
    return table


def read_only(root: Path, path: str) -> None:
    cv2.imread(str(root / path))


def nothing(path: str) -> None:
    pass


def building(
    root: Path, layout: Layout, table: pd.DataFrame, side: int, workers: int, repeats: int
) -> list[Measure]:
    def spread(work: Callable[..., Any], paths: pd.Series) -> list[Any]:
        return list(each_in_processes(work, paths, workers=workers, description="reading"))

    actions = {
        "cache": lambda: build_cache(root, layout, side, workers),
        "read": lambda: spread(partial(read_only, root), table.path),
        "start": lambda: spread(nothing, table.path[:1]),
    }
    seconds = timed_rounds(actions, repeats)
    cache, read, start = (statistics.median(values) for values in seconds.values())
    note = f"{cache:.2f} and {read:.2f} s, of it {start:.2f} s to start {workers} processes"
    return [
        Measure(
            "cache building ÷ cv2.imread of the same files, processes running",
            (cache - start) / (read - start), 1.0, False, note=loss(root, table, side),
        ),
        Measure(
            "the same, start of the processes included",
            median_ratio(seconds["cache"], seconds["read"]), 1.0, False, note=note,
        ),
    ]  # fmt: skip


def epoch_input(root: Path, layout: Layout, side: int, repeats: int) -> Measure:
    manifest = read_manifest(layout.manifest)
    cache = open_cache(layout, manifest, side)
    rows = np.random.default_rng(0).permutation(len(manifest))
    batches = np.array_split(rows, max(1, len(rows) // BATCH))
    few = manifest.path[rows[: len(rows) // 4]]  # this side is slow, and its images alike

    def fetch() -> None:
        for batch in batches:
            np.array(cache.images[batch])
            cache.masks(batch)

    def decode() -> None:
        for path in few:
            prepare_image(read_bytes(root / path), root / path, side)

    seconds = timed_rounds({"decode": decode, "cache": fetch}, repeats)
    decoded, cached = (
        [1e3 * value / count for value in seconds[name]]
        for name, count in (("decode", len(few)), ("cache", len(rows)))
    )
    return Measure(
        "input of an epoch: decoding and masking ÷ from the cache", median_ratio(decoded, cached),
        50, True, note=f"{statistics.median(cached):.3f} ms an image from the cache",
    )  # fmt: skip


def loss(root: Path, table: pd.DataFrame, side: int) -> str:
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
    grey = np.stack(differences)
    return (
        f"scaled decoding differs by {grey.mean():.2f} grey values, by "
        f"{np.percentile(grey, 99):.0f} in one pixel of 100; masks overlap by "
        f"{np.mean(overlaps):.3f}, at least {min(overlaps):.3f}"
    )


if __name__ == "__main__":
    main()
