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
PARTS = ("training", "data", "bootstrap", "coverage", "scale", "gpu")


def run(script: str, folder: Path, *options: str) -> list[Measure]:
    """What a benchmark writes; it prints its own table, and its failure is this one's."""
    output = folder / f"{script}.json"
    command = [sys.executable, str(HERE / f"{script}.py"), "--output", str(output), *options]
    subprocess.run(command, check=True)
    rows = read_json(output)["measures"]
    return [Measure(**{key: row[key] for key in row if key != "met"}) for row in rows]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", help="folder of JPEG files at native size")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    folder = options.output or HERE.parent / "results" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    measures = []
    for name in options.only:
        native = ["--data", options.data] if name == "data" and options.data else []
        measures += run(name, folder, *native)
    show("Benchmarks", measures, folder / "all.json")


if __name__ == "__main__":
    main()
