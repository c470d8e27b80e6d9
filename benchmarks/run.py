"""Every benchmark with a target, one after the other, and one table of them all: `make bench`.

    python benchmarks/run.py [--data FOLDER] [--output FOLDER] [--only NAME...]

About 40 minutes on two idle cores, a good third of it the coverage of the intervals. --data names a
folder of radiographs at native size for the cache's figures; without it phantoms are generated.
Timings want an otherwise idle machine.
"""

import subprocess
import sys
from pathlib import Path

from report import Measure, arguments, show

from hybridlungvit.io import read_json

HERE = Path(__file__).parent


def run(script: str, folder: Path, *options: str) -> dict:
    """What a benchmark writes; it prints its own tables, and its failure is this one's."""
    output = folder / f"{script}.json"
    command = [sys.executable, str(HERE / f"{script}.py"), "--output", str(output), *options]
    subprocess.run(command, check=True)
    return read_json(output)


def training(record: dict) -> list[Measure]:
    kept = ("name", "value", "target", "at_least", "bound", "note")
    return [Measure(**{key: row[key] for key in kept}) for row in record["measures"]]


def data(record: dict) -> list[Measure]:
    build, feed, lost = record["building"], record["input"], record["loss"]
    return [
        Measure(
            "input of an epoch: decoding and masking ÷ from the cache", feed["ratio"], 50, True,
            note=f"{feed['cache_ms']:.3f} ms an image from the cache",
        ),
        Measure(
            "cache building ÷ cv2.imread of the same files, processes running",
            build["ratio_without_start"], 1.0, False,
            note=f"scaled decoding differs by {lost['mean_difference']:.2f} grey values",
        ),
        Measure(
            "the same, start of the processes included", build["ratio"], 1.0, False,
        ),
    ]  # fmt: skip


def bootstrap(record: dict) -> list[Measure]:
    return [
        Measure(
            "AUC of 10,000 resamples: loop over scikit-learn ÷ ours", record["ratio"], 100, True,
            note=f"they differ by {record['difference']:.0e}",
        ),
        Measure("its memory in MB", record["megabytes"], 500, False),
    ]  # fmt: skip


def coverage(record: dict) -> list[Measure]:
    measures = []
    for auc in sorted({cell["auc"] for cell in record["cells"]}):
        rows = [
            cell["rules"]["chosen"]
            for cell in record["cells"]
            if cell["auc"] == auc and cell["seeds"] >= 5
        ]
        for name, what in (("level", "mean AUC"), ("difference", "difference of two")):
            furthest = max((row[name] for row in rows), key=lambda share: abs(share - 0.95))
            measures.append(
                Measure(
                    f"coverage of a {what}, AUC {auc:g}, 5 seeds or more: furthest from 95 %",
                    abs(furthest - 0.95), 0.015, False, note=f"{furthest:.3f}",
                )
            )  # fmt: skip
        most = max(row["rejected"] for row in rows)
        name = f"equal models told apart at 5 %, AUC {auc:g}, 5 seeds or more: at most"
        measures.append(Measure(name, most, 0.06, False))
    return measures


def scale(record: dict) -> list[Measure]:
    measures = []
    for stage in ("manifest", "cache", "metrics"):
        rows = [row for row in record["rows"] if row["stage"] == stage]
        small, large = rows[0], rows[-1]
        note = f"{large['seconds']:.0f} s of processor for {large['images']:,} images"
        measures += [
            Measure(
                f"memory of {stage} for {large['images']:,} images, MB", large["peak_mb"], 2000,
                False, note=note,
            ),
            Measure(
                f"processor time an image of {stage}, {large['images']:,} ÷ {small['images']:,}",
                large["ms_per_image"] / small["ms_per_image"], 1.2, False,
            ),
        ]  # fmt: skip
    return measures


PARTS = {
    "training": training, "data": data, "bootstrap": bootstrap, "coverage": coverage,
    "scale": scale,
}  # fmt: skip


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", help="folder of JPEG files at native size")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    folder = options.output or HERE.parent / "results" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    measures = []
    for name in options.only:
        native = ["--data", options.data] if name == "data" and options.data else []
        measures += PARTS[name](run(name, folder, *native))
    show("Benchmarks", measures, folder / "all.json")


if __name__ == "__main__":
    main()
