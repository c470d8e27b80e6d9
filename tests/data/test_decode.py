"""Image files of every kind: what is used, what is refused, and that nothing else happens."""

import contextlib
import io
import logging
import os
import shutil
import tracemalloc
import zlib
from datetime import timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import no_permission
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from hybridlungvit.data.cache import build_cache, prepare_image
from hybridlungvit.data.decode import decode_grey, inspect_image, read_grey
from hybridlungvit.data.manifest import build_manifest, read_manifest
from hybridlungvit.io import StudyError
from hybridlungvit.paths import Layout
from hybridlungvit.phantom import render

GREY = render(1, 1, "normal", contrast=1.0, median_width=160).image
ROWS, COLS = GREY.shape


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decoded(content, detail=1000):
    return decode_grey(content, Path("file"), detail)


def facts(content, folder):
    """Width, height and note, as the manifest has them."""
    path = folder / "file"
    path.write_bytes(content)
    _, width, height, size, note = inspect_image(path)
    assert size == len(content)
    return width, height, note


def png(pixels):
    return cv2.imencode(".png", pixels)[1].tobytes()


def bomb(kind, side=20_000):
    """A file of a few hundred bytes that claims side × side px."""
    content = bytearray(encoded(Image.new("L", (16, 16)), kind))
    if kind == "PNG":
        content[16:24] = side.to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    else:
        frame = content.index(b"\xff\xc0") + 5
        content[frame : frame + 4] = side.to_bytes(2, "big") * 2
    return bytes(content)


JPEG = encoded(Image.fromarray(GREY), "JPEG", quality=95)
TWO_PICTURES = {"save_all": True, "append_images": [Image.fromarray(255 - GREY)]}
REFUSED = {
    "empty": (b"", "is empty"),
    "truncated": (JPEG[: len(JPEG) // 2], "cannot be read as an image"),
    "truncated PNG": (png(GREY)[:-2000], "cannot be read as an image"),
    "text": (b"I am no picture", "holds no JPEG or PNG image"),
    "tiny": (encoded(Image.new("L", (1, 1)), "PNG"), "is 1 × 1 px"),
    "huge PNG": (bomb("PNG"), "more than 50,000,000 pixels"),
    "large JPEG": (bomb("JPEG", 9000), "9,000 × 9,000 px: more than 50,000,000 pixels"),
    "animated": (encoded(Image.fromarray(GREY), "PNG", **TWO_PICTURES), "animation of 2 pictures"),
    "dicom": (b"\0" * 128 + b"DICM" + b"\0" * 100, "is a DICOM file. Convert it first"),
    "tiff": (encoded(Image.fromarray(GREY), "TIFF"), "holds no JPEG or PNG image"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_of_no_use_is_named_with_the_reason(tmp_path, name):
    content, reason = REFUSED[name]
    path = tmp_path / "scan 7 é.jpeg"
    path.write_bytes(content)
    with pytest.raises(StudyError, match=reason) as caught:
        inspect_image(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_bomb_takes_no_memory(tmp_path, kind):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(kind))
    tracemalloc.start()
    with pytest.raises(StudyError):
        inspect_image(path)
    with pytest.raises(StudyError):
        read_grey(path, 224)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_links_folders_pipes_and_locked_files_are_refused(tmp_path, monkeypatch):
    loop, away, pipe, locked = (tmp_path / f"{n}.png" for n in ("loop", "away", "pipe", "locked"))
    loop.symlink_to(loop)
    away.symlink_to(tmp_path / "nothing")
    os.mkfifo(pipe)  # reading it would wait for ever
    (tmp_path / "folder.png").mkdir()
    for path in (loop, away, pipe, tmp_path / "folder.png"):
        with pytest.raises(StudyError, match=path.name):
            inspect_image(path)
    locked.write_bytes(JPEG)
    monkeypatch.setattr(Path, "read_bytes", no_permission)
    with pytest.raises(StudyError, match=r"locked\.png: cannot be read \(Permission denied\)"):
        inspect_image(locked)


def test_alpha_is_laid_over_black(tmp_path):
    alpha = np.tile(np.linspace(0, 255, COLS).astype(np.uint8), (ROWS, 1))
    expected = GREY * (alpha / 255)
    for image in (
        Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)]),
        Image.fromarray(np.dstack([GREY, GREY, GREY, alpha])),
    ):
        content = encoded(image, "PNG")
        assert facts(content, tmp_path)[2] == "alpha"
        assert np.abs(decoded(content) - expected).max() <= 1.5
    few = Image.fromarray((GREY // 86).astype(np.uint8)).convert("P")  # three colours, two bits
    few.putpalette([0, 0, 0, 100, 100, 100, 200, 200, 200])
    content = encoded(few, "PNG", bits=2, transparency=bytes([255, 0, 255]))
    assert facts(content, tmp_path)[2] == "alpha"
    assert np.array_equal(decoded(content), np.where(GREY // 86 == 2, 200, 0))
    deep = np.dstack([GREY.astype(np.uint16) * 257] * 3 + [alpha.astype(np.uint16) * 257])
    assert facts(png(deep), tmp_path)[2] == "16-bit, alpha"
    stretched = (expected - expected.min()) / np.ptp(expected) * 255
    assert np.abs(decoded(png(deep)).astype(float) - stretched).max() <= 1


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_sixteen_bits_are_stretched_from_darkest_to_brightest(tmp_path, bits):
    deep = (GREY.astype(np.float64) / 255 * (2**bits - 1)).round().astype(np.uint16)
    content = png(deep)
    assert facts(content, tmp_path)[2] == "16-bit"
    expected = (GREY - GREY.min()) * (255 / np.ptp(GREY))
    assert np.abs(decoded(content) - expected).max() <= 1
    colour = decoded(png(np.dstack([deep] * 3))).astype(int)
    assert np.abs(colour - decoded(content)).max() <= 1  # where rounding ties
    assert not decoded(png(np.full((20, 20), 700, np.uint16))).any()


def test_cmyk_is_read_through_rgb(tmp_path):
    image = Image.fromarray(np.dstack([GREY] * 3)).convert("CMYK")
    content = encoded(image, "JPEG", quality=98)
    assert facts(content, tmp_path)[2] == "CMYK"
    assert np.abs(decoded(content).astype(int) - GREY).mean() < 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_files_come_out_upright(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(GREY), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    note = "" if orientation == 1 else "rotated"
    assert facts(content, tmp_path) == (*upright.size, note)
    assert np.abs(decoded(content).astype(int) - np.asarray(upright)).max() <= 2
    shrunk = decoded(content, detail=min(GREY.shape) // 2)
    assert shrunk.shape[0] == -(-upright.height // (1 if kind == "PNG" else 2))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_png_files_of_every_kind_and_size_pass_and_plain_ones_agree_with_opencv(tmp_path, mode):
    for image in (GREY, GREY[:16, :19], GREY[:17, :20]):
        content = encoded(Image.fromarray(image).convert(mode), "PNG")
        note = {"LA": "alpha", "RGBA": "alpha", "I;16": "16-bit"}.get(mode, "")
        assert facts(content, tmp_path)[2] == note
        plain = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert note or np.array_equal(decoded(content), plain)


def test_what_is_done_to_odd_files_is_told_and_stands_in_the_manifest(
    folder, study, tmp_path, caplog
):
    deep, path = folder / "train" / "NORMAL" / "IM-9999-0001 ä b.PNG", tmp_path / "manifest.csv"
    deep.write_bytes(png(GREY.astype(np.uint16) * 16))
    with caplog.at_level(logging.WARNING):
        build_manifest(folder, study.data, path, 1)
    assert "1 images are 16-bit" in caplog.text
    notes = read_manifest(path).set_index("path").note
    assert notes.pop("train/NORMAL/IM-9999-0001 ä b.PNG") == "16-bit"
    assert len(notes) == 90 and (notes == "").all()


def test_all_bad_images_are_told_at_once(folder, study, tmp_path):
    files = sorted((folder / "train" / "PNEUMONIA").iterdir())[:7]
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(StudyError, match="and 2 further images") as caught:
        build_manifest(folder, study.data, tmp_path / "out" / "manifest.csv", 1)
    assert all(file.name in str(caught.value) for file in files[:5])
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("copy", "reason"),
    [
        ("train/PNEUMONIA/person999_virus_1.jpeg", "in both classes: .*IM.*person999_virus_1"),
        ("test/NORMAL/IM-9999-0001.jpeg", "same image is in train and test"),
        ("test/NORMAL/{name}", r"IM-\d+ is in train and test"),
    ],
)
def test_one_image_in_both_classes_or_sides_is_an_error(folder, study, tmp_path, copy, reason):
    source = next((folder / "train" / "NORMAL").iterdir())
    shutil.copy(source, folder / copy.format(name=source.name))
    with pytest.raises(StudyError, match=reason):
        build_manifest(folder, study.data, tmp_path / "manifest.csv", 1)
    assert not (tmp_path / "manifest.csv").exists()


def test_the_cache_notices_a_replaced_image(folder, study, tmp_path):
    layout = Layout("replaced", results=tmp_path / "results")
    build_manifest(folder, study.data, layout.manifest, 1)
    first, second = sorted((folder / "test" / "NORMAL").iterdir())[:2]
    shutil.copy(second, first)
    with pytest.raises(StudyError, match=rf"{first.name}: is not the file the manifest lists"):
        build_cache(folder, layout, 32, workers=1)
    assert not list(layout.images.parent.glob("*"))


SEEDS = [JPEG, encoded(Image.fromarray(GREY), "PNG"), png(GREY.astype(np.uint16) * 99)]


# Damage must not make a file endless; the limit is for that alone, a file takes milliseconds.
@settings(max_examples=300, deadline=timedelta(minutes=5))
@given(st.sampled_from(SEEDS), st.randoms(use_true_random=False), st.integers(1, 12))
def test_damaged_files_are_read_or_refused(tmp_path_factory, seed, random, changes):
    content = bytearray(seed)
    for _ in range(changes):
        # Headers decide more than pixels do.
        place = random.randrange(200 if random.random() < 0.5 else len(content))
        inserted = random.randbytes(random.choice([0, 1, random.randrange(2, 40)]))
        content[place : place + random.choice([0, 1, random.randrange(2, 40)])] = inserted
    path = tmp_path_factory.getbasetemp() / "damaged.jpeg"
    path.write_bytes(content)
    with contextlib.suppress(StudyError):
        _, width, height, size, _ = inspect_image(path)
        assert min(width, height) > 0 and size == len(content)
    with contextlib.suppress(StudyError):
        image, mask, confidence, cut = prepare_image(bytes(content), path, 32)
        assert image.shape == mask.shape == (32, 32)
        assert 0 <= confidence <= 1 and 0 < cut < 1


@pytest.fixture(scope="module")
def jpegs():
    """Radiographs as JPEG files of several kinds: plain, progressive, in colour, with restarts."""
    options = [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 4}]
    files = []
    for seed in range(40):
        picture = render(seed, seed, "bacteria", contrast=1.0, median_width=320).image
        image = Image.fromarray(picture).convert("RGB" if seed % 3 == 0 else "L")
        files.append(encoded(image, "JPEG", quality=85 + seed % 3 * 5, **options[seed % 4]))
    return files


def test_whole_jpeg_files_are_not_refused_and_leave_stderr_as_it_was(jpegs, tmp_path, capfd):
    path = tmp_path / "file.jpeg"
    for content in jpegs:
        path.write_bytes(content)
        inspect_image(path)
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


@pytest.mark.parametrize("damage", ["zeroed", "random", "cut out", "truncated"])
def test_jpeg_files_with_a_damaged_middle_are_refused(jpegs, tmp_path, damage):
    rng, refused, total = np.random.default_rng(0), 0, 0
    path = tmp_path / "file.jpeg"
    for content in jpegs:
        data = content.index(b"\xff\xda") + 20
        for share in (0.05, 0.2, 0.5):
            length = int(share * (len(content) - data))
            start = int(rng.integers(data, len(content) - length - 2))
            middle = {"zeroed": bytes(length), "random": rng.bytes(length)}.get(damage, b"")
            after = b"" if damage == "truncated" else content[start + length :]
            path.write_bytes(content[:start] + middle + after)
            total += 1
            try:
                inspect_image(path)
            except StudyError as error:
                assert "file.jpeg: cannot be read as an image" in str(error)
                assert "\n" not in str(error)
                refused += 1
    assert refused >= 0.95 * total


def with_data_behind(content, extra):
    """A PNG whose stream of pixels goes on with ``extra`` zeros."""
    parts, position = [content[:8]], 8
    while position < len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        kind, body = content[position + 4 : position + 8], content[position + 8 :][:size]
        if kind == b"IDAT":
            packer = zlib.compressobj()
            body = packer.compress(zlib.decompress(body))
            body += b"".join(packer.compress(bytes(10**6)) for _ in range(extra // 10**6))
            body += packer.flush()
        parts += [len(body).to_bytes(4, "big"), kind, body]
        parts.append(zlib.crc32(kind + body).to_bytes(4, "big"))
        position += 12 + size
    return b"".join(parts)


def test_a_png_with_compressed_data_behind_its_pixels_is_refused(tmp_path):
    path = tmp_path / "file.png"
    whole = encoded(Image.fromarray(GREY), "PNG", compress_level=1)
    assert whole.count(b"IDAT") == 1
    path.write_bytes(with_data_behind(whole, 100 * 10**6))
    tracemalloc.start()
    with pytest.raises(StudyError, match="compressed data far beyond its pixels"):
        inspect_image(path)
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()
    path.write_bytes(with_data_behind(whole, 0) + b"trailing")
    inspect_image(path)
