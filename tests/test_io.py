"""Damaged records, full disks and locked folders: one message, and nothing half-written."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.evaluation.score import load_run, score
from hybridlungvit.io import (
    StudyError,
    blaming_records,
    read_json,
    read_table,
    remove_leftovers,
    replacing,
    write_text,
)


@pytest.mark.parametrize("text", ["", "3", '{"a": ', "\x00", "[" * 100_000])
def test_a_damaged_record_is_named(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(StudyError, match=r"run\.json: .*Delete it and run again"):
        read_json(path)


def test_a_missing_key_is_named_at_any_depth(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"a": {"b": [{"c": 1}]}}))
    record = read_json(path)
    assert record["a"]["b"][0]["c"] == 1
    assert record == {"a": {"b": [{"c": 1}]}}
    for holder in (record, record["a"], record["a"]["b"][0]):
        with pytest.raises(StudyError, match=r"run\.json: has no 'gone'"):
            holder["gone"]


def test_an_emptied_run_record_stops_scoring(study, layout):
    write_text(layout.run("no_seg", 0) / "run.json", "{}")
    for read in (load_run, score):
        with pytest.raises(StudyError, match=r"run\.json: has no 'config_sha256'"):
            read(study, "no_seg", 0, layout)


@pytest.mark.parametrize("damage", ["", "path\n", "\x00\x01", "a,b\n1,2,3\n4,5,6,7", '"', None])
def test_a_damaged_or_missing_table_is_named(tmp_path, damage):
    path = tmp_path / "masks.csv"
    if damage is not None:
        path.write_text(damage)
    with pytest.raises(StudyError, match=r"masks\.csv: "):
        read_manifest(path)
    with pytest.raises(StudyError, match=r"masks\.csv: "):
        read_table(path, ("path", "confidence"))


@pytest.mark.parametrize("column", ["split", "label", "width"])
def test_a_manifest_with_odd_values_is_damaged(cached, tmp_path, column):
    table = pd.read_csv(cached.manifest).astype({column: object})
    table.loc[3, column] = "seven"
    path = tmp_path / "manifest.csv"
    table.to_csv(path, index=False)
    with pytest.raises(StudyError, match=r"manifest\.csv: damaged"):
        read_manifest(path)


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_damaged(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(content)
    with pytest.raises(StudyError, match=r"fuzz\.csv"):
        read_manifest(path)


def test_replacing_puts_whole_new_content_in_place(tmp_path):
    path = tmp_path / "new" / "file.csv"
    for content in ("first", "second" * 100_000, "é"):
        with replacing(path) as temporary:
            assert temporary.parent == path.parent
            assert temporary.suffix == ".csv"
            temporary.write_text(content, encoding="utf-8")
            assert not path.exists() or path.read_text(encoding="utf-8") != content
        assert path.read_text(encoding="utf-8") == content
        assert list(path.parent.iterdir()) == [path]
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert path.stat().st_mode == ordinary.stat().st_mode


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("odd"), ValueError),
        (KeyboardInterrupt("stop"), KeyboardInterrupt),
        (StudyError("bad"), StudyError),
        (OSError(28, "No space left on device"), StudyError),
    ],
)
def test_replacing_leaves_the_old_file_when_the_block_raises(tmp_path, error, told):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(told, match=error.args[-1]), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_told_in_words(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match=r"file/a.txt: cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "x")


@pytest.mark.parametrize(
    ("use", "key"),
    [
        (lambda record: f"{record['a']['estimate']:.3f}", "estimate"),
        (lambda record: record["a"]["estimate"] * 2.0, "estimate"),
        (lambda record: record["a"]["estimate"]["low"], "estimate"),
        (lambda record: record["list"]["key"], "list"),
        (lambda record: sorted(record["a"]["mixed"]), "mixed"),
    ],
)
def test_a_value_of_another_kind_is_told_with_file_and_key(tmp_path, use, key):
    path = tmp_path / "metrics.json"
    write_text(path, '{"a": {"estimate": "0.9", "mixed": [1, "2"]}, "list": [1]}')
    message = rf"metrics\.json: the value of '{key}' is not"
    with pytest.raises(StudyError, match=message) as caught, blaming_records():
        use(read_json(path))
    assert "\n" not in str(caught.value)


def test_leftovers_of_a_killed_process_go_and_those_in_use_stay(tmp_path):
    path = tmp_path / "images.npy"
    stay = [tmp_path / name for name in (".images-abc.npy", ".images-12345678.csv", ".other.npy")]
    for file in (*stay, tmp_path / ".images-12345678.npy", tmp_path / ".images-k_9abcde.npy"):
        file.touch()
    with replacing(path) as temporary:
        remove_leftovers(path)
        assert sorted(tmp_path.iterdir()) == sorted([*stay, temporary])
        temporary.write_text("whole")
    assert path.read_text() == "whole"


KILLED = """
import os, signal, sys, time
from pathlib import Path
from hybridlungvit.runtime import each_in_processes

def work(row):
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(600)

if __name__ == "__main__":
    list(each_in_processes(work, range(64), workers=2, description="waiting"))
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script, folder = tmp_path / "script.py", tmp_path / "pids"
    script.write_text(KILLED)
    folder.mkdir()
    parent = subprocess.Popen([sys.executable, script, folder])
    try:
        while len(list(folder.iterdir())) < 2:
            assert parent.poll() is None
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()
    for pid in [int(file.name) for file in folder.iterdir()]:
        while is_running(pid):  # the suite's own limit ends a test that waits for ever
            time.sleep(0.05)


def is_running(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
