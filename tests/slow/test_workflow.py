"""The whole workflow on tiny phantoms, from nothing to the PDF, in a folder of its own."""

import json
import os
import random
import re
import shutil
import subprocess
import sys

import cv2
import pandas as pd
import pytest
import timm
import yaml
from conftest import TINY, checkout, snakemake, snakemake_call
from safetensors.torch import save_file

from hybridlungvit.paper.contents import COMPANIONS

REPORT = {"text", "figures", "pdf", "page", "check_paper", "seal"}


def planned(folder):
    """The rules a dry run would execute."""
    done = snakemake(folder, "-n", "--configfile", "tiny.yaml")
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    names = [line.split()[1].rstrip(":") for line in lines if re.match("(local)?rule ", line)]
    return {re.sub(r"^(score|explain)_.*", r"\1", name) for name in names} - {"all"}


@pytest.fixture(scope="module")
def edited(finished, tmp_path_factory):
    """A copy of the finished checkout, for `plan_with`, which puts everything back."""
    folder = tmp_path_factory.mktemp("edited") / "study"
    return shutil.copytree(finished, folder, symlinks=True)


@pytest.fixture
def own(finished, tmp_path):
    """A copy of the finished checkout of the test's own."""
    return shutil.copytree(finished, tmp_path / "own", symlinks=True)


def test_the_default_study_plans_without_data_or_gpu(tmp_path):
    done = snakemake(checkout(tmp_path), "-n")
    assert done.returncode == 0, done.stderr
    jobs = dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2)
    assert jobs["train"] == str(7 * 5)
    assert [count for name, count in jobs.items() if name.startswith("score_")] == ["1"] * 7


def test_a_bad_config_stops_with_one_message(tmp_path):
    folder = checkout(tmp_path)
    done = snakemake(folder, "-n", "--configfile", "tiny.yaml", "--config", "lambda_sgg=1")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("config: lambda_sgg: unknown key")
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["-n", "--config", "weights=none.pth"],
         "model.pretrained: no file none.pth, so that no_seg cannot be trained. Give one, such as"),
        (["--workflow-profile", "workflow/profiles/paper"],
         "results/tiny/predictions/no_seg/seed-0.csv: not found. The paper is made from stored"),
    ],
)  # fmt: skip
def test_what_a_plan_lacks_is_said_last(tmp_path, call, message):
    done = snakemake(checkout(tmp_path), "--configfile", "tiny.yaml", *call)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(message)


def test_a_leak_stops_the_workflow_before_any_training(phantoms, tmp_path):
    folder = checkout(tmp_path)
    shutil.copytree(phantoms, folder / "images")
    source = next((folder / "images" / "train" / "NORMAL").iterdir())
    copy = folder / "images" / "test" / "NORMAL" / "IM-9999-0001.jpeg"
    image = cv2.imread(str(source), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(copy), cv2.add(image, 8), [cv2.IMWRITE_JPEG_QUALITY, 85])
    study = TINY | {"data": TINY["data"] | {"source": "folder"}, "data_root": "images"}
    del study["data"]["phantom"]
    (folder / "tiny.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    done = snakemake(folder, "--keep-going", "--configfile", "tiny.yaml")
    assert done.returncode != 0
    root = folder / "results" / "tiny"
    message = (root / "logs" / "leaks.log").read_text()
    assert f"train/NORMAL/{source.name} and test/NORMAL/IM-9999-0001.jpeg" in message
    assert "same radiograph" in message
    error = message.rpartition(" ERROR ")[2].strip()
    last = [line for line in done.stderr.splitlines() if line][-2:]
    assert sorted(last) == [  # the two jobs fail in any order
        f"{rule} failed: {error} (results/tiny/logs/{rule}.log)" for rule in ("audit", "leaks")
    ]
    assert (root / "masks.csv").is_file()
    assert not any((root / name).exists() for name in ("leaks.json", "audit.json", "runs", "work"))


def test_workflow_ends_with_a_clean_pdf(finished):
    last = (finished.parent / "finished.log").read_text().splitlines()[-1]
    assert last == "Made: paper/tiny.pdf and paper/tiny.html"
    assert (finished / "paper" / "tiny.pdf").stat().st_size > 50_000
    log = (finished / "paper" / "build" / "tiny" / "tiny.log").read_text(errors="replace")
    assert "undefined" not in log and "multiply defined" not in log
    macros = (finished / "paper" / "generated" / "tiny" / "macros.tex").read_text()
    for words in (r"\phantomtrue", r"\setstudy{result/auc}", r"\setstudy{difference/plain_deit}"):
        assert words in macros


def test_the_companions_say_what_the_records_say(finished):
    folder = finished / "paper" / "generated" / "tiny" / "companions"
    assert {path.name for path in folder.iterdir()} == set(COMPANIONS)
    metrics = json.loads((finished / "results" / "tiny" / "metrics" / "no_seg.json").read_text())
    auc = metrics["headline"]["auc"]
    printed = f"{auc['estimate']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})"
    card = (folder / "model_card.md").read_text()
    assert f"| AUC | {printed} |" in card
    assert "say nothing\nabout any patient" in card
    assert "intervals over patients" in card
    folders = re.findall(r"`(results/tiny/[^`]+)/`", card)
    assert len(folders) == 2
    assert all((finished / place).is_dir() for place in folders)
    manifest = pd.read_csv(finished / "results" / "tiny" / "manifest.csv")
    tests = manifest[manifest.split == "test"]
    counts = f"| test | {len(tests)} | {tests.patient.nunique()} | {(tests.label == 0).sum()} |"
    for name in ("model_card.md", "datasheet.md"):
        assert counts in (folder / name).read_text()
    for name in COMPANIONS:
        text = (folder / name).read_text()
        # Rows of a table follow each other without a gap, and have equally many cells.
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            cells = {line.count("|") for line in table.splitlines()}
            assert len(cells) == 1, (name, table)


def plan_with(folder, texts):
    """The rules that a dry run would execute if some files had other texts."""
    before = {path: (path.read_text(), path.stat()) for path in texts}
    try:
        for path, text in texts.items():
            path.write_text(text)
        return planned(folder)
    finally:
        for path, (text, times) in before.items():
            path.write_text(text)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


SOURCE = "src/hybridlungvit"
EDITS = {
    "words": ("paper/sections/data.tex", "", "% edited\n"),
    "comment": (f"{SOURCE}/model/tokens.py", "", "# edited\n"),
    "colour": (f"{SOURCE}/paper/style.py", "#0072B2", "#0072B3"),
    "metric": (f"{SOURCE}/evaluation/metrics.py", "(tp + fn)", "(fn + tp)"),
    "detector": (f"{SOURCE}/audit/copies.py", "min(most, len(image))", "min(len(image), most)"),
    "config": (f"{SOURCE}/config.py", "epoch < self.freeze_epochs", "True"),
}


@pytest.mark.parametrize(
    ("edits", "runs", "rests"),
    [
        # Two in one call, where they have no stage in common.
        (("words", "comment"), {"text", "pdf"}, {"figures", "train", "score", "explain"}),
        (("colour",), {"figures", "pdf"}, {"train", "metrics"}),
        (("metric", "detector"), {"metrics", "audit", "pdf"}, {"leaks", "train"}),
        (("config",), {"train", "score"}, set()),
    ],
)
def test_an_edit_reruns_its_stage_and_what_follows(edited, edits, runs, rests):
    texts = {}
    for file, old, new in map(EDITS.get, edits):
        before = (edited / file).read_text()
        assert old in before
        texts[edited / file] = before.replace(old, new, 1) if old else before + new
    rules = plan_with(edited, texts)
    assert runs <= rules
    assert not rests & rules


def test_shuffled_file_times_plan_nothing(own):
    paths = [p for p in own.rglob("*") if p.is_file() and ".snakemake" not in p.parts]
    for place, path in enumerate(random.Random(0).sample(paths, len(paths))):
        os.utime(path, (1e9 + place, 1e9 + place))
    os.utime(own / "results" / "tiny" / "manifest.csv", (0, 0))
    assert planned(own) == set()
    # What a failed job has removed is missed, though its results are there.
    manifest = own / "results" / "tiny" / "manifest.csv"
    manifest.rename(manifest.with_suffix(".away"))
    assert {"manifest", "leaks", "audit"} <= planned(own)
    manifest.with_suffix(".away").rename(manifest)
    # Images are looked at although nothing has to be made.
    next((own / "results" / "tiny" / "phantom" / "test" / "NORMAL").iterdir()).unlink()
    done = snakemake(own, "--configfile", "tiny.yaml")
    assert done.returncode != 0
    assert "manifest.csv: lists other images" in done.stderr.splitlines()[-1]


def test_a_moved_study_is_adopted_after_checking_its_seal_and_its_runs(finished, tmp_path):
    folder = checkout(tmp_path, origin=finished)
    shutil.copytree(finished / "results", folder / "results")
    shutil.copytree(finished / "paper", folder / "paper", dirs_exist_ok=True)
    os.utime(folder / "results" / "tiny" / "manifest.csv")  # as copies that keep no times
    adopt = [sys.executable, "-m", "hybridlungvit", "adopt", "--config", "tiny.yaml"]
    call = snakemake_call(folder) | {"args": [*adopt, "--", "--use-conda"]}
    done = subprocess.run(**call, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert planned(folder) == REPORT | {"metrics", "compare", "audit_results"}
    (folder / "more.yaml").write_text("training: {learning_rate: 2.0e-3}\n")
    overlaid = call | {"args": [*adopt, "more.yaml"]}
    done = subprocess.run(**overlaid, capture_output=True, text=True)
    assert done.returncode == 1 and "runs were made otherwise" in done.stderr
    path = folder / "results" / "tiny" / "runs" / "no_seg" / "seed-0" / "run.json"
    path.write_text(path.read_text().replace('"code_sha256": "', '"code_sha256": "0'))
    done = subprocess.run(**call, capture_output=True, text=True)
    assert done.returncode == 1
    assert "run.json: altered" in done.stderr


MEASURED = {"metrics", "compare", "quality", "mask_benchmark", "audit", "audit_results"}
EXPLAINED = {"explain", "galleries"}
REORDERED = ["no_seg", "plain_deit", "seg_0.1", "no_tta"]


@pytest.mark.parametrize(
    ("changes", "runs"),
    [
        ({"title": "Another", "compute": {"loader_workers": 1}}, REPORT),
        ({"statistics": {"resamples": 300}}, REPORT | MEASURED | EXPLAINED),
        ({"explanation": {"seed": 1}}, REPORT | EXPLAINED),
        ({"training": {"learning_rate": 2e-3}}, None),
        ({"variants": {v: TINY["variants"][v] for v in REORDERED}}, None),
    ],
)
def test_a_changed_value_reruns_the_stages_it_matters_to(edited, changes, runs):
    path = edited / "tiny.yaml"
    values = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        merged = isinstance(value, dict) and key != "variants"
        values[key] = values[key] | value if merged else value
    rules = plan_with(edited, {path: yaml.safe_dump(values, sort_keys=False)})
    if "variants" in changes:
        assert {"compare", "text", "figures"} <= rules and "train" not in rules
    elif runs is None:
        assert {"train", "score", "metrics", "compare", "text", "pdf"} <= rules
        assert "cache" not in rules
    else:
        assert rules == runs


def test_weights_copied_again_do_not_train_again(own):
    """Weights of more than a megabyte, the size up to which Snakemake would compare contents."""
    model = TINY["model"]
    state = timm.create_model(model["stem"], img_size=32, **model["stem_options"]).state_dict()
    weights = own / "stem.safetensors"
    save_file(state, weights)
    assert weights.stat().st_size > 1_000_000
    changed = TINY | {"seeds": [0], "model": model | {"pretrained": "stem.safetensors"}}
    changed["variants"] = {"no_seg": TINY["variants"]["no_seg"]}
    (own / "tiny.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    done = snakemake(own, "--configfile", "tiny.yaml", "--until", "train")
    assert done.returncode == 0, done.stdout + done.stderr
    os.utime(weights)
    assert "train" not in planned(own)
    state["norm.weight"] += 1
    save_file(state, weights)
    assert "train" in planned(own)


def test_another_reference_reaches_the_checked_paper(own):
    changed = TINY | {"seeds": [0], "reference": "plain_deit"}
    (own / "tiny.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    done = snakemake(own, "--configfile", "tiny.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((own / "results/tiny/metrics/comparisons.json").read_text())
    assert list(record["differences"]) == ["no_seg", "seg_0.1", "no_tta"]
