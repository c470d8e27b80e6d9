"""The benchmarks run and report; what they find is for `make bench` to say."""

import importlib
import json
import math
import re
import subprocess
import sys

from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))


def run(name, output, *arguments):
    command = [sys.executable, REPOSITORY / "benchmarks" / name, "--output", output, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text())["measures"]


def test_every_training_measure_is_a_finite_ratio(monkeypatch, tmp_path):
    """The training benchmark on a handful of small images."""
    training = importlib.import_module("training")
    for name, value in (("SIDE", 32), ("IMAGES", 8), ("REPEATS", 1)):
        monkeypatch.setattr(training, name, value)
    rounds = training.timed_rounds
    monkeypatch.setattr(training, "timed_rounds", lambda actions, *_: rounds(actions, 1))
    data = training.random_cache(tmp_path)
    measures = [
        training.throughput(training.TINY, 4, 0.1, 0.8, data),
        training.against_literal(data),
        training.frozen_epoch(data),
        training.lung_pooling(data),
        training.waiting(data),
        training.scaling(data),
    ]
    assert all(math.isfinite(m.value) and m.value > 0 for m in measures)
    assert 0 < measures[0].bound < 1 < measures[2].bound
    # Here earlier tests may hide the peak, so no more than that it is measured.
    assert all(math.isfinite(training._step_memory(kind, tmp_path)) for kind in ("hybrid", "bare"))


def test_without_a_gpu_its_part_says_that_nothing_was_measured(monkeypatch, tmp_path, capsys):
    gpu, output = importlib.import_module("gpu"), tmp_path / "out.json"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(gpu, "start_logging", lambda: None)
    monkeypatch.setattr("sys.argv", ["gpu.py", "--output", str(output)])
    gpu.main()
    assert "This section stays unmeasured." in capsys.readouterr().out
    assert json.loads(output.read_text())["measures"] == []


def test_a_resumed_run_is_compared_with_an_uninterrupted_one(monkeypatch, tmp_path):
    """The GPU's measure, on the processor."""
    training, gpu = (importlib.import_module(name) for name in ("training", "gpu"))
    for name, value in (("SIDE", 32), ("IMAGES", 8)):
        monkeypatch.setattr(training, name, value)
    data = training.random_cache(tmp_path)
    assert gpu.resumed(data, tmp_path, training.CPU).met
    monkeypatch.setattr(gpu, "load_checkpoint", lambda *_: None)
    assert not gpu.resumed(data, tmp_path, training.CPU).met


def test_the_table_says_which_targets_are_missed(tmp_path, capsys):
    report = importlib.import_module("report")
    measures = [
        report.Measure("fast enough", 0.95, 0.9, True, bound=0.97),
        report.Measure("too slow", 1.4, 1.3, False),
    ]
    report.show("Some", measures, tmp_path / "out.json")
    assert [m.met for m in measures] == [True, False]
    printed = re.findall(r"[│|] *(yes|no) *[│|]", capsys.readouterr().out)
    assert printed == ["yes", "no"]
    written = json.loads((tmp_path / "out.json").read_text())
    assert [m["met"] for m in written["measures"]] == [True, False]
    assert written["machine"]["processor"]


def test_ratios_are_taken_within_a_round():
    report = importlib.import_module("report")
    assert report.median_ratio([2, 20, 300], [1, 10, 100]) == 2


def test_growth_is_the_cost_of_an_image_in_the_largest_run_beside_the_smallest():
    scale = importlib.import_module("scale")
    sizes = ((1000, 2, 200), (2000, 10, 300), (4000, 12, 2100))
    stages = ("manifest", "cache", "metrics")
    measures = scale.growth({stage: [scale.Growth(*size) for size in sizes] for stage in stages})
    assert [m.value for m in measures] == [2100, 1.5] * 3
    assert not any(m.met for m in measures)
    assert measures[3].name == "processor time an image of cache, 4,000 ÷ 1,000"


def test_the_readme_quotes_what_was_measured():
    measured = json.loads((REPOSITORY / "benchmarks" / "measured.json").read_text())
    readme = (REPOSITORY / "benchmarks" / "README.md").read_text()
    assert measured["machine"]["processor"] in readme
    for row in measured["measures"]:
        sign = "≥" if row["at_least"] else "≤"
        bound = "" if row["bound"] is None else f"{row['bound']:.3g}"
        quoted = f"| {row['name']} | {row['value']:.3g} | {sign} {row['target']:g} | {bound} |"
        assert quoted in readme, f"run `make bench` and copy: {quoted}"


def test_data_benchmark(phantoms, tmp_path):
    measures = run(
        "data.py", tmp_path / "out.json", "--data", phantoms / "test", "--images", "40",
        "--repeats", "1", "--side", "32",
    )  # fmt: skip
    assert [m["value"] > 0 for m in measures] == [True] * 3
    difference, overlap = re.search(r"by (\S+) grey.*least (\S+)", measures[1]["note"]).groups()
    assert float(difference) < 3 and float(overlap) > 0.8


def test_scale_benchmark(tmp_path):
    sizes = ("--images", "300", "--scored", "300", "600")
    measures = run("scale.py", tmp_path / "out.json", *sizes)
    assert len(measures) == 6
    assert "metrics, 600 ÷ 300" in measures[-1]["name"]
    assert all(m["value"] > 0 for m in measures)
