"""Time and memory of the stages as the number of images grows.

    python benchmarks/scale.py [--images 5000 10000 20000] [--scored 25000 50000 100000]
                               [--output FILE.json]

Makes folders of small phantom radiographs, each file different, and measures the manifest and the
cache (128 px); then, on made-up scores without images, the stage `metrics` with all its numbers.
Each stage runs in a process of its own; the peak memory is that of the largest process, and the
time is the processor's, which other programs of the machine disturb less than the clock. 100,000
images need about 2.5 GB of disk for the time. Scores are of one seed and resampled 100 times, a
hundredth of a study's: their time, too, is proportional to the number of resamples.
"""

import resource
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from report import Measure, arguments, show

from hybridlungvit.config import Data, Study, study_from
from hybridlungvit.data.cache import build_cache
from hybridlungvit.data.manifest import COLUMNS, build_manifest
from hybridlungvit.evaluation.evaluate import evaluate_variant
from hybridlungvit.evaluation.predictions import COLUMNS as SCORED
from hybridlungvit.io import file_sha256, write_json, write_text
from hybridlungvit.paths import Layout
from hybridlungvit.phantom import render

TEMPLATES = 200
MEDIAN_WIDTH, SIDE = 160, 128
TEST_SHARE = 0.2
RESAMPLES = 100
VALIDATION = 2000  # images that thresholds and temperature are chosen on


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, nargs="*", default=[5_000, 10_000, 20_000])
    parser.add_argument("--scored", type=int, nargs="*", default=[25_000, 50_000, 100_000])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    templates = [jpeg(seed) for seed in range(TEMPLATES)]
    rows: dict[str, list[Growth]] = {"manifest": [], "cache": [], "metrics": []}
    for count in options.images:
        with tempfile.TemporaryDirectory() as scratch:
            write_images(Path(scratch) / "images", count, templates)
            for stage in (manifest, cache):
                rows[stage.__name__].append(alone(stage, Path(scratch), count, options.workers))
    for count in options.scored:
        with tempfile.TemporaryDirectory() as scratch:
            write_scores(layout_in(Path(scratch)), count)
            rows["metrics"].append(alone(metrics, Path(scratch), count, options.workers))
    show("Growth", growth(rows), options.output)


class Growth(NamedTuple):
    """What a stage took: seconds of processor and peak memory in MB, for so many images."""

    images: int
    seconds: float
    megabytes: float


def growth(rows: dict[str, list[Growth]]) -> list[Measure]:
    """Memory of each stage in the largest run, and time an image beside the smallest."""
    measures = []
    for stage, sizes in rows.items():
        if not sizes:
            continue
        small, large = sizes[0], sizes[-1]
        ratio = (large.seconds / large.images) / (small.seconds / small.images)
        note = f"{large.seconds:.0f} s of processor for {large.images:,} images"
        measures += [
            Measure(
                f"memory of {stage} for {large.images:,} images, MB", large.megabytes, 2000, False,
                note=note,
            ),
            Measure(
                f"processor time an image of {stage}, {large.images:,} ÷ {small.images:,}",
                ratio, 1.2, False,
            ),
        ]  # fmt: skip
    return measures


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


def metrics(root: Path, workers: int) -> None:
    """Every metric of the scores, in one process."""
    evaluate_variant(study(), "made_up", layout_in(root))


def study() -> Study:
    variant = {"label": "made up", "description": "scores without a model"}
    values = {"study": "scale", "title": "Scale", "seeds": [0], "reference": "made_up"}
    values |= {"variants": {"made_up": variant}, "statistics": {"resamples": RESAMPLES}}
    return study_from(values, "scale")


def write_scores(layout: Layout, count: int) -> None:
    """Predictions of ``count`` test images, and what the stage asks of their manifest and masks."""
    rng = np.random.default_rng(0)
    row = np.arange(count + VALIDATION)
    test = row < count
    person = row * 2 // 3
    label = (person % 4 != 0).astype(int)
    table = pd.DataFrame({"path": [f"{i}.jpeg" for i in row], "label": label})
    table["patient"] = [f"p{i}" for i in person]
    table["split"] = np.where(test, "test", "val")
    table["subtype"] = np.where(label == 0, "normal", np.where(person % 3, "virus", "bacteria"))
    table["probability"] = 1 / (1 + np.exp(1 - 2 * label - rng.normal(size=len(row))))
    sizes = {name: rng.integers(900, 1500, len(row)) for name in ("width", "height", "bytes")}
    listed = table.assign(sha256="", note="", **sizes)[COLUMNS]
    write_text(layout.manifest, listed.to_csv(index=False))
    masks = pd.DataFrame({"path": table.path, "confidence": rng.random(len(row))})
    write_text(layout.mask_table, masks.to_csv(index=False))
    path = layout.predictions("made_up", 0)
    write_text(path, table[SCORED].to_csv(index=False))
    record = {"config_sha256": study().prediction_hash("made_up")}
    write_json(path.with_suffix(".json"), record | {"predictions_sha256": file_sha256(path)})


def layout_in(root: Path) -> Layout:
    return Layout("scale", results=root / "results")


def alone(stage: Callable[[Path, int], None], root: Path, count: int, workers: int) -> Growth:
    """What a stage takes in processes of its own."""
    context = get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_measure, args=(stage, root, workers, answers))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{stage.__name__} failed")
    taken = Growth(count, *answers.get())
    print(
        f"{stage.__name__}, {count:,} images: {taken.seconds:.1f} s, {taken.megabytes:.0f} MB",
        file=sys.stderr,
    )
    return taken


def _measure(stage: Callable[[Path, int], None], root: Path, workers: int, answers: Any) -> None:
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)

    def processor() -> float:
        used = map(resource.getrusage, whose)
        return sum(usage.ru_utime + usage.ru_stime for usage in used)

    before = processor()
    stage(root, workers)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = max(resource.getrusage(who).ru_maxrss for who in whose) * unit / 1e6
    answers.put((processor() - before, peak))


if __name__ == "__main__":
    main()
