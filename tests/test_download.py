"""Downloads against a server on this machine that fails in every way a server can."""

import functools
import hashlib
import http.server
import io
import logging
import threading
import time
import zipfile

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY

from hybridlungvit.cli import image_root
from hybridlungvit.configfile import load_study, study_from
from hybridlungvit.data.archive import unpack
from hybridlungvit.data.download import Patience, fetch
from hybridlungvit.data.manifest import build_manifest, read_manifest, unit_of
from hybridlungvit.data.remote import download_source, image_folder, remote_file
from hybridlungvit.errors import StudyError
from hybridlungvit.files import read_json
from hybridlungvit.paths import Layout

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(connect=2, read=0.4, attempts=3, pause=0.01)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.content``; ``server.faults`` holds what goes wrong, one entry a request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        fault = server.faults.pop(0) if server.faults else ""
        if isinstance(fault, int):
            self.send_error(fault)
            return
        content, start = server.content, 0
        span = self.headers.get("Range")
        unchanged = self.headers.get("If-Range") in (None, server.etag)
        if span and fault != "ignore range" and unchanged:
            start = int(span.removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = content[start:]
        self.send_response(206 if start else 200)
        if start:
            shown = start + (7 if fault == "wrong range" else 0)
            self.send_header("Content-Range", f"bytes {shown}-{len(content) - 1}/{len(content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        if fault != "no length":
            self.send_header("Content-Length", str(len(body)))
        else:
            self.close_connection = True
        self.end_headers()
        if fault == "truncate":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif fault == "stall":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            server.released.wait(5)
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    instance = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    instance.handle_error = lambda *arguments: None  # the client hangs up on purpose
    instance.content, instance.faults, instance.requests = CONTENT, [], []
    instance.etag, instance.released = '"one"', threading.Event()
    instance.url = f"http://127.0.0.1:{instance.server_port}/file"
    thread = threading.Thread(target=functools.partial(instance.serve_forever, 0.02), daemon=True)
    thread.start()
    yield instance
    instance.released.set()
    instance.shutdown()
    instance.server_close()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "down" / "file.zip"


def left(target):
    return sorted(path.name for path in target.parent.iterdir())


@pytest.mark.parametrize(
    "faults",
    [
        [],
        ["no length"],
        ["truncate"],
        ["truncate", "truncate", "truncate", "truncate", "truncate"],
        ["stall"],
        [500, 503],
        [429],
        ["truncate", "ignore range"],
        ["truncate", "wrong range"],
        ["truncate", 502, "truncate"],
    ],
)
def test_a_passing_fault_ends_with_the_whole_file(server, target, faults):
    server.faults = list(faults)
    assert fetch(server.url, target, size=len(CONTENT), patience=QUICK) == SHA256
    assert target.read_bytes() == CONTENT
    assert left(target) == ["file.zip", "file.zip.sha256"]
    harmless = sum(fault in ("no length", "ignore range") for fault in faults)
    assert len(server.requests) == len(faults) + 1 - harmless


def test_a_broken_transfer_goes_on_where_it_ended(server, target):
    server.faults = ["truncate"]
    with pytest.raises(StudyError, match=r"gave up after 1 attempts .*1,441,792 bytes are kept"):
        fetch(server.url, target, patience=Patience(attempts=1))
    assert left(target) == [".file.zip.etag", ".file.zip.part"]
    assert fetch(server.url, target, patience=QUICK) == SHA256
    assert server.requests[1]["Range"] == "bytes=1441792-"
    assert server.requests[1]["If-Range"] == '"one"'


def test_a_file_replaced_meanwhile_comes_whole(server, target):
    server.faults = ["truncate"]
    with pytest.raises(StudyError, match="kept"):
        fetch(server.url, target, patience=Patience(attempts=1))
    server.content, server.etag = CONTENT[::-1], '"two"'
    fetch(server.url, target, patience=QUICK)
    assert target.read_bytes() == CONTENT[::-1]


def test_a_part_that_is_the_whole_or_too_much(server, target):
    target.parent.mkdir()
    part = target.with_name(".file.zip.part")
    part.write_bytes(CONTENT)
    assert fetch(server.url, target, patience=QUICK) == SHA256
    target.unlink()
    part.write_bytes(CONTENT + b"x")
    assert fetch(server.url, target, patience=QUICK) == SHA256
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_told_at_once(server, target, status):
    server.faults = [status]
    with pytest.raises(StudyError, match=rf"answers {status} .*put it at .*file\.zip, or give"):
        fetch(server.url, target, patience=QUICK)
    assert len(server.requests) == 1
    assert not target.exists()


def test_a_server_that_never_works_is_given_up(server, target):
    server.faults = [500] * 10
    with pytest.raises(StudyError, match=r"gave up after 3 attempts without progress \(status 500"):
        fetch(server.url, target, patience=QUICK)
    server.faults = []
    server.shutdown()
    server.server_close()
    with pytest.raises(StudyError, match="gave up after 3 attempts"):
        fetch(server.url, target, patience=QUICK)
    with pytest.raises(StudyError, match="no address"):
        fetch("ftp://somewhere/file", target, patience=QUICK)


def test_a_stalled_server_does_not_hang(server, target):
    server.faults = ["stall"]
    start = time.monotonic()
    with pytest.raises(StudyError, match="bytes are kept"):
        fetch(server.url, target, patience=Patience(read=0.3, attempts=1))
    assert time.monotonic() - start < 4


@pytest.mark.parametrize("digest", ["md5", "sha256"])
def test_wrong_bytes_are_refused_and_not_kept(server, target, digest):
    checksum = hashlib.new(digest, CONTENT).hexdigest()
    server.content = b"<html>please log in</html>"
    with pytest.raises(StudyError, match=f"says {checksum}"):
        fetch(server.url, target, checksum=checksum, patience=QUICK)
    with pytest.raises(StudyError, match="gives 26 bytes instead of 3,000,000"):
        fetch(server.url, target, size=len(CONTENT), patience=QUICK)
    assert not target.exists()
    assert not target.with_name(".file.zip.part").exists()
    server.content = CONTENT
    assert fetch(server.url, target, checksum=checksum, patience=QUICK) == SHA256
    assert not target.with_name("file.zip.sha256").exists()


def test_the_first_download_is_trusted_and_asked_of_later_ones(server, target, caplog):
    with caplog.at_level(logging.WARNING):
        fetch(server.url, target, patience=QUICK)
    assert f"no checksum of file.zip is published: its SHA-256, {SHA256}" in caplog.text
    assert target.with_name("file.zip.sha256").read_text() == f"{SHA256}  file.zip\n"
    assert fetch(server.url, target, patience=QUICK) == SHA256
    assert len(server.requests) == 1  # it was there already
    target.write_bytes(b"altered")
    with pytest.raises(StudyError, match=r"file\.zip\.sha256 says"):
        fetch(server.url, target, patience=QUICK)
    target.unlink()
    server.content = CONTENT[:-1]
    with pytest.raises(StudyError, match=r"file\.zip\.sha256 says"):
        fetch(server.url, target, patience=QUICK)


def test_a_full_disk_is_told_before(server, target, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("hybridlungvit.data.download.shutil.disk_usage", lambda path: usage)
    with pytest.raises(StudyError, match="3,000,000 bytes are to come and 1,000 are free"):
        fetch(server.url, target, patience=QUICK)


def test_a_disk_that_fills_up_meanwhile_is_told_and_the_part_kept(server, target, monkeypatch):
    def refuse(handle):
        raise OSError(28, "No space left on device")

    server.etag = ""  # of which a note would be kept first
    monkeypatch.setattr("hybridlungvit.data.download.os.fsync", refuse)
    with pytest.raises(StudyError, match=r"down: cannot be written \(No space left on device\)"):
        fetch(server.url, target, patience=QUICK)
    assert not target.exists()
    monkeypatch.undo()
    assert fetch(server.url, target, patience=QUICK) == SHA256


def test_two_downloads_into_one_file_do_not_mix(server, target):
    server.faults = ["stall"]
    slow = Patience(read=3, attempts=2, pause=0.01)
    first = threading.Thread(target=fetch, args=(server.url, target), kwargs={"patience": slow})
    first.start()
    while not server.requests:
        time.sleep(0.01)
    with pytest.raises(StudyError, match="another download into this folder"):
        fetch(server.url, target, patience=QUICK)
    server.released.set()
    first.join()
    assert target.read_bytes() == CONTENT


def kermany_zip(phantoms, prefix="chest_xray/", extra=()):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(phantoms.glob("t*/*/*.jpeg")):
            name = path.relative_to(phantoms).as_posix()
            archive.write(path, prefix + name)
            archive.writestr("__MACOSX/" + prefix + name, "left by a Mac")
        archive.writestr(prefix + "train/NORMAL/.DS_Store", "x")
        for name, content in extra:
            archive.writestr(name, content)
    return stream.getvalue()


def mnist_npz():
    rng, arrays = np.random.default_rng(1), {}
    for split, count in (("train", 30), ("val", 8), ("test", 12)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 64, 64), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue(), arrays


def test_a_mendeley_study_is_fetched_unpacked_and_recorded(
    server, tiny, phantoms, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    server.content = kermany_zip(phantoms)
    tiny["data"] = {"source": "mendeley", "image_size": 32, "validation_folds": 3}
    tiny["data"] |= {
        "url": server.url, "checksum": hashlib.sha256(server.content).hexdigest(),
    }  # fmt: skip
    study = study_from(tiny, "tiny")
    layout = Layout(study.study)
    download_source(study, layout)
    root = image_root(study, layout)
    assert root.as_posix() == "data/mendeley/ChestXRay2017"
    for path in phantoms.glob("t*/*/*.jpeg"):
        assert (root / path.relative_to(phantoms)).read_bytes() == path.read_bytes()
    record = read_json(layout.download)
    assert record["images"] == {"train": 60, "val": 0, "test": 30}
    assert (record["unit"], record["checked"]) == ("patient", "against data.checksum")
    before = root.stat().st_mtime_ns
    download_source(study, layout)
    assert len(server.requests) == 1
    assert root.stat().st_mtime_ns == before
    table = build_manifest(root, study.data, layout.manifest, 1)
    assert unit_of(table) == "patient"


def test_pneumoniamnist_keeps_its_own_split_and_has_no_patients(
    server, tiny, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    server.content, arrays = mnist_npz()
    tiny["data"] = {"source": "pneumoniamnist", "image_size": 32, "url": server.url}
    study = study_from(tiny, "tiny")
    layout = Layout(study.study)
    with pytest.raises(StudyError, match="publisher says 8f4eceb4ccffa70c672198ea285246c6"):
        download_source(study, layout)
    digest = hashlib.md5(server.content, usedforsecurity=False).hexdigest()
    study = study_from(tiny | {"data": tiny["data"] | {"checksum": digest}}, "tiny")
    download_source(study, layout)
    table = build_manifest(image_folder(study.data, layout), study.data, layout.manifest, 2)
    assert table.split.value_counts().to_dict() == {"train": 30, "val": 8, "test": 12}
    assert unit_of(read_manifest(layout.manifest)) == read_json(layout.download)["unit"] == "image"
    assert table.patient.is_unique
    row = table[table.path == "val/PNEUMONIA/val-00003.png"].iloc[0]
    assert (row.label, row.split) == (1, "val")
    image = cv2.imread(str(image_folder(study.data, layout) / row.path), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(image, arrays["val_images"][3])


@pytest.mark.parametrize(
    ("asked", "size", "name"),
    [
        (None, 32, "_64"),
        (None, 128, "_128"),
        (None, 224, "_224"),
        (None, 384, "_224"),
        (28, 64, ""),
    ],
)
def test_the_mnist_large_enough_is_chosen(tiny, asked, size, name):
    tiny["data"] = {"source": "pneumoniamnist", "image_size": size, "mnist_size": asked}
    file = remote_file(study_from(tiny, "x").data)
    assert file.name == f"pneumoniamnist{name}.npz"
    assert file.name in file.url


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o120777 << 16
    return entry


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("../train/NORMAL/a.jpeg", "leads out"),
        ("/train/NORMAL/a.jpeg", "leads out"),
        ("..\\..\\a.jpeg", "leads out"),
        ("C:/train/NORMAL/a.jpeg", "leads out"),
        (link("chest_xray/train/NORMAL/a.jpeg"), "is a link"),
    ],
)
def test_a_crafted_zip_is_refused_whole(phantoms, tmp_path, entry, reason):
    archive = tmp_path / "a" / "crafted.zip"
    archive.parent.mkdir()
    archive.write_bytes(kermany_zip(phantoms, extra=[(entry, "/etc/passwd")]))
    with pytest.raises(StudyError, match=reason):
        unpack(archive, "0", archive.with_name("images"))
    assert [path.name for path in archive.parent.iterdir()] == ["crafted.zip"]
    assert len(list(tmp_path.iterdir())) == 1


def test_bad_archives_are_named_and_leave_nothing(phantoms, tmp_path, monkeypatch):
    whole = kermany_zip(phantoms)
    broken = bytearray(whole)
    broken[2000:2100] = bytes(100)
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as stream:
        stream.writestr("train/cats/a.jpeg", "x")
    bad = {
        "html.zip": b"<html>", "half.zip": whole[: len(whole) // 2], "broken.zip": bytes(broken),
        "empty.zip": b"", "cats.zip": other.getvalue(), "html.npz": b"<html>",
        "half.npz": mnist_npz()[0][:5000],
    }  # fmt: skip
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StudyError, match=name):
            unpack(tmp_path / name, "0", tmp_path / "images")
    (tmp_path / "whole.zip").write_bytes(whole)
    monkeypatch.setattr("hybridlungvit.data.archive.MOST_BYTES", 1000)
    with pytest.raises(StudyError, match="more than 1,000 bytes"):
        unpack(tmp_path / "whole.zip", "0", tmp_path / "images")
    assert {path.name for path in tmp_path.iterdir()} == {*bad, "whole.zip"}


def test_of_nested_copies_the_outermost_is_taken(phantoms, tmp_path):
    archive = tmp_path / "kaggle.zip"
    inner = [("chest_xray/chest_xray/train/NORMAL/inner.jpeg", "x")]
    archive.write_bytes(kermany_zip(phantoms, extra=inner))
    unpack(archive, "0", tmp_path / "images")
    assert len(list((tmp_path / "images").glob("*/*/*.jpeg"))) == 90
    assert not list((tmp_path / "images").glob("**/inner.jpeg"))
    unpack(archive, "1", tmp_path / "images")  # another file: unpacked anew
    assert (tmp_path / "images" / ".unpacked-from").read_text() == "1"


def test_the_full_study_downloads_unless_given_a_folder(tmp_path):
    full = load_study(REPOSITORY / "config" / "kermany.yaml")
    assert full.data.source == "mendeley"
    values = yaml.safe_load((REPOSITORY / "config" / "kermany.yaml").read_text())
    given = study_from(values | {"data_root": str(tmp_path)}, "x")
    assert given.data.source == "folder"
    assert image_root(given, Layout("kermany")) == tmp_path
    assert (
        pd.Series(given.model_dump()["data"])
        .drop("source")
        .equals(pd.Series(full.model_dump()["data"]).drop("source"))
    )
