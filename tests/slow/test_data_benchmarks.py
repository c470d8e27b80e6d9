"""The benchmarks of the data stages run, and their figures are of the right kind."""

import json
import subprocess
import sys

import pytest
from conftest import REPOSITORY


def run(name, output, *arguments):
    command = [sys.executable, REPOSITORY / "benchmarks" / name, "--output", output, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text())


def test_data_benchmark(phantoms, tmp_path):
    figures = run(
        "data.py", tmp_path / "out.json", "--data", phantoms / "test", "--images", "40",
        "--repeats", "1", "--side", "32",
    )  # fmt: skip
    assert (figures["images"], figures["files"]) == (40, 30)
    assert figures["building"]["ratio"] > 0
    assert figures["input"]["ratio"] > 0
    assert figures["loss"]["mean_difference"] < 3
    assert figures["loss"]["mask_overlap_lowest"] > 0.8


@pytest.mark.slow
def test_scale_benchmark(tmp_path):
    sizes = ("--images", "300", "--scored", "300", "600")
    figures = run("scale.py", tmp_path / "out.json", *sizes)
    stages = [(row["stage"], row["images"]) for row in figures["rows"]]
    assert stages == [("manifest", 300), ("cache", 300), ("metrics", 300), ("metrics", 600)]
    assert all(row["seconds"] > 0 and row["peak_mb"] > 10 for row in figures["rows"])
