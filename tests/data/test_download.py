"""Downloads against a server on this machine that fails in the ways a server can."""

import hashlib
import http.server
import io
import logging
import re
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, checkout, no_space, snakemake

from hybridlungvit import runtime
from hybridlungvit.config import load_study, study_from
from hybridlungvit.data.download import download_source, fetch, image_folder, remote_file, unpack
from hybridlungvit.data.manifest import build_manifest, read_manifest, unit_of
from hybridlungvit.data.sources import image_root
from hybridlungvit.io import StudyError, read_json
from hybridlungvit.paths import Layout

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.content``; ``server.faults`` holds what goes wrong, one entry a request."""

    def do_GET(self):
        server, body = self.server, self.server.content
        server.requests += 1
        fault = server.faults.pop(0) if server.faults else ""
        if isinstance(fault, int):
            self.send_error(fault)
            return
        self.send_response(200)
        if fault != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault in ("truncate", "stall") else body)
        if fault == "stall":
            server.released.wait(5)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    monkeypatch.setattr("hybridlungvit.data.download.TIMEOUT", (2, 0.4))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as instance:
        instance.handle_error = lambda *arguments: None  # the client hangs up on purpose
        instance.content, instance.faults, instance.requests = CONTENT, [], 0
        instance.released = threading.Event()
        instance.url = f"http://127.0.0.1:{instance.server_port}/file"
        threading.Thread(target=instance.serve_forever, args=(0.02,), daemon=True).start()
        yield instance
        instance.released.set()
        instance.shutdown()


@pytest.fixture
def target(tmp_path):
    (tmp_path / "down").mkdir()
    return tmp_path / "down" / "file.zip"


def left(target):
    return sorted(path.name for path in target.parent.iterdir())


@pytest.mark.parametrize("faults", [[], ["no length"], ["stall"], [503, "truncate", 429]])
def test_a_passing_fault_ends_with_the_whole_file(server, target, faults):
    server.faults = list(faults)
    assert fetch(server.url, target) == SHA256
    assert target.read_bytes() == CONTENT
    assert left(target) == ["file.zip", "file.zip.sha256"]
    assert target.stat().st_mode & 0o777 == target.parent.stat().st_mode & 0o666
    assert server.requests == 1 + len([fault for fault in faults if fault != "no length"])


@pytest.mark.parametrize(("fault", "reason"), [("truncate", "IncompleteRead"), (404, "404")])
def test_a_fault_that_stays_is_told_and_leaves_nothing(server, target, fault, reason):
    server.faults = [fault] * 10
    with pytest.raises(StudyError, match=rf"{reason}.*put it at {target}; or .*data\.url"):
        fetch(server.url, target, SHA256)
    assert server.requests == 4
    assert left(target) == []
    target.write_bytes(CONTENT)  # brought there by hand
    assert fetch(server.url, target, SHA256) == SHA256


def test_a_disk_that_refuses_is_told(server, tiny, target, monkeypatch):
    tiny["data"] = {"source": "mendeley", "url": server.url}
    layout = Layout("tiny", downloads=target.parent)
    monkeypatch.setattr("pooch.core.shutil.move", no_space)
    with pytest.raises(StudyError, match=r"mendeley.*cannot be written \(No space left on device"):
        download_source(study_from(tiny, "tiny"), layout)
    assert server.requests == 1
    assert left(target.parent / "mendeley" / "x") == [".lock"]


@pytest.mark.parametrize("digest", ["md5", "sha256"])
def test_wrong_bytes_are_refused_and_not_kept(server, target, digest):
    checksum = hashlib.new(digest, CONTENT).hexdigest()
    server.content = b"<html>please log in</html>"
    actual = hashlib.new(digest, server.content).hexdigest()
    with pytest.raises(StudyError, match=f"expected {digest}:{checksum} but got {actual}"):
        fetch(server.url, target, checksum=checksum)
    assert left(target) == []
    server.content = CONTENT
    assert fetch(server.url, target, checksum=checksum) == SHA256
    assert left(target) == ["file.zip"]


def test_the_first_download_is_trusted_and_asked_of_later_ones(server, target, caplog, monkeypatch):
    monkeypatch.setattr(runtime, "PATIENCE", -1)
    with caplog.at_level(logging.INFO):
        fetch(server.url, target)
    assert re.search(r"downloading: 1 of 3, \d+ s left\n(.*\n)*.*: 3 of 3, 0 s left", caplog.text)
    assert f"no checksum of file.zip is published: its SHA-256, {SHA256}" in caplog.text
    assert target.with_name("file.zip.sha256").read_text() == f"{SHA256}  file.zip\n"
    assert fetch(server.url, target) == SHA256
    assert server.requests == 1  # it was there already
    target.write_bytes(b"altered")
    with pytest.raises(StudyError, match=rf"not the sha256:{SHA256} that .*file\.zip\.sha256 says"):
        fetch(server.url, target)
    assert target.read_bytes() == b"altered"  # the user's own file, perhaps
    target.unlink()
    server.content = CONTENT[:-1]
    with pytest.raises(StudyError, match=f"expected sha256:{SHA256}"):
        fetch(server.url, target)


def kermany_zip(phantoms, extra=()):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(phantoms.glob("t*/*/*.jpeg")):
            name = path.relative_to(phantoms).as_posix()
            archive.write(path, "chest_xray/" + name)
            archive.writestr("__MACOSX/chest_xray/" + name, "left by a Mac")
        archive.writestr("chest_xray/train/NORMAL/.DS_Store", "x")
        archive.writestr("chest_xray/chest_xray/train/NORMAL/inner.jpeg", "of a copy within")
        for name, content in extra:
            archive.writestr(name, content)
    return stream.getvalue()


def mnist_npz(labels=1):
    rng, arrays = np.random.default_rng(1), {}
    for split, count in (("train", 30), ("val", 8), ("test", 12)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 64, 64), dtype=np.uint8)
        arrays[f"{split}_labels"] = labels * (np.arange(count) % 2)[:, None]
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue(), arrays


def test_a_mendeley_study_is_recorded(server, tiny, phantoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server.content = kermany_zip(phantoms)
    tiny["data"] = {"source": "mendeley", "image_size": 32, "validation_folds": 3}
    tiny["data"] |= {"url": server.url, "checksum": hashlib.sha256(server.content).hexdigest()}
    study = study_from(tiny, "tiny")
    layout = Layout(study.study)
    with ThreadPoolExecutor() as pool:  # two studies want the same images at once
        list(pool.map(lambda _: download_source(study, layout), range(2)))
    root = image_root(study, layout)
    assert root.as_posix().startswith("data/mendeley/ChestXRay2017-")
    other = study_from(tiny | {"data": tiny["data"] | {"url": None}}, "tiny")
    assert image_root(other, layout).as_posix() == "data/mendeley/ChestXRay2017"  # not these images
    for path in phantoms.glob("t*/*/*.jpeg"):
        assert (root / path.relative_to(phantoms)).read_bytes() == path.read_bytes()
    record = read_json(layout.download)
    assert record["images"] == {"train": 60, "val": 0, "test": 30}
    assert record["sha256"] == tiny["data"]["checksum"]
    assert record["checked"] == "against data.checksum"
    before = root.stat().st_mtime_ns
    download_source(study, layout)
    assert server.requests == 1
    assert root.stat().st_mtime_ns == before
    unpack(root.with_name(f"{root.name}.zip"), "another", root)
    assert root.stat().st_mtime_ns > before
    table = build_manifest(root, study.data, layout.manifest, 1)
    assert unit_of(table) == "patient"


@pytest.mark.slow
def test_the_download_rule_gets_by_with_its_environment(server, tiny, phantoms, tmp_path):
    server.content = kermany_zip(phantoms)
    digest = hashlib.sha256(server.content).hexdigest()
    tiny["data"] = {"source": "mendeley", "url": server.url, "checksum": digest}
    folder = checkout(tmp_path)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny, sort_keys=False))
    record = Layout("tiny").download
    done = snakemake(folder, str(record), "--configfile", "tiny.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_json(folder / record)["images"] == {"train": 60, "val": 0, "test": 30}


def test_pneumoniamnist_keeps_its_split_without_patients(server, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server.content, arrays = mnist_npz()
    tiny["data"] = {"source": "pneumoniamnist", "image_size": 32, "url": server.url}
    study = study_from(tiny, "tiny")
    layout = Layout(study.study)
    with pytest.raises(StudyError, match="expected md5:8f4eceb4ccffa70c672198ea285246c6"):
        download_source(study, layout)
    digest = hashlib.md5(server.content, usedforsecurity=False).hexdigest()
    study = study_from(tiny | {"data": tiny["data"] | {"checksum": digest}}, "tiny")
    download_source(study, layout)
    table = build_manifest(image_folder(study.data, layout), study.data, layout.manifest, 1)
    assert table.split.value_counts().to_dict() == {"train": 30, "val": 8, "test": 12}
    assert unit_of(read_manifest(layout.manifest)) == "image"
    assert table.patient.is_unique
    row = table[table.path == "val/PNEUMONIA/val-00003.png"].iloc[0]
    assert (row.label, row.split) == (1, "val")
    image = cv2.imread(str(image_folder(study.data, layout) / row.path), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(image, arrays["val_images"][3])


@pytest.mark.parametrize(
    ("asked", "size", "chosen"),
    [(None, 32, "_64"), (None, 128, "_128"), (None, 384, "_224"), (28, 64, "")],
)
def test_the_mnist_large_enough_is_chosen(tiny, asked, size, chosen):
    tiny["data"] = {"source": "pneumoniamnist", "image_size": size, "mnist_size": asked}
    file = remote_file(study_from(tiny, "x").data)
    assert file.name == f"pneumoniamnist{chosen}.npz" and file.name in file.url


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o120777 << 16
    return entry


@pytest.mark.parametrize(
    "entry",
    [
        "../train/NORMAL/a.jpeg", "/train/NORMAL/a.jpeg", "..\\..\\a.jpeg",
        "C:/train/NORMAL/a.jpeg", link("chest_xray/train/NORMAL/a.jpeg"),
    ],
)  # fmt: skip
def test_a_crafted_zip_writes_nothing_but_regular_files_in_its_folder(phantoms, tmp_path, entry):
    archive = tmp_path / "a" / "crafted.zip"
    archive.parent.mkdir()
    archive.write_bytes(kermany_zip(phantoms, extra=[(entry, "/etc/passwd")]))
    unpack(archive, "0", archive.with_name("images"))
    assert {path.name for path in tmp_path.iterdir()} == {"a"}
    assert {path.name for path in archive.parent.iterdir()} == {"crafted.zip", "images"}
    inside = list(archive.with_name("images").rglob("*"))
    assert not any(path.is_symlink() for path in inside)
    assert {path.parent.name for path in inside if path.suffix} <= {"NORMAL", "PNEUMONIA"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_bad_archives_are_named_and_leave_nothing(phantoms, tmp_path, monkeypatch):
    whole = kermany_zip(phantoms)
    broken = bytearray(whole)
    broken[2000:2100] = bytes(100)
    cats = io.BytesIO()
    with zipfile.ZipFile(cats, "w") as stream:
        stream.writestr("train/cats/a.jpeg", "x")
    twice = [(f"{above}/val/NORMAL/a.jpeg", "x") for above in ("chest_xray", "again")]
    double = io.BytesIO()
    with zipfile.ZipFile(double, "w") as stream:
        stream.writestr("val_labels.npy", "hidden")
        with zipfile.ZipFile(io.BytesIO(mnist_npz()[0])) as arrays:
            for name in arrays.namelist():
                stream.writestr(name, arrays.read(name))
    bad = {
        "html.zip": b"<html>", "half.zip": whole[: len(whole) // 2], "broken.zip": bytes(broken),
        "empty.zip": b"", "cats.zip": cats.getvalue(), "html.npz": b"<html>",
        "half.npz": mnist_npz()[0][:5000], "labels.npz": mnist_npz(labels=-1)[0],
        "twice.zip": kermany_zip(phantoms, twice),
        "again.zip": kermany_zip(phantoms, twice[:1] * 2), "double.npz": double.getvalue(),
    }  # fmt: skip
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StudyError, match=name):
            unpack(tmp_path / name, "0", tmp_path / "images")
    (tmp_path / "whole.zip").write_bytes(whole)
    monkeypatch.setattr("hybridlungvit.data.download.MOST_BYTES", 1000)
    with pytest.raises(StudyError, match="more than 1,000 bytes"):
        unpack(tmp_path / "whole.zip", "0", tmp_path / "images")
    assert {path.name for path in tmp_path.iterdir()} == {*bad, "whole.zip"}


def test_the_full_study_downloads_unless_given_a_folder(tmp_path):
    full = load_study(REPOSITORY / "config" / "kermany.yaml")
    assert full.data.source == "mendeley"
    values = yaml.safe_load((REPOSITORY / "config" / "kermany.yaml").read_text())
    given = study_from(values | {"data_root": str(tmp_path)}, "x")
    assert given.data == full.data.model_copy(update={"source": "folder"})
    assert image_root(given, Layout("kermany")) == tmp_path
    # Commands that read the file alone, such as `cite`, take what was made from the folder.
    assert given.prediction_hash("no_seg") == full.prediction_hash("no_seg")
