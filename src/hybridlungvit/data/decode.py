"""Image files to 8-bit grey pixels: what is read, what is refused, how unusual formats are turned.

Plain grey and colour files are read as they are. Of the others, the manifest's column `note` says
what was done: `16-bit` is stretched linearly from the image's own darkest to its brightest value,
`alpha` is laid over black, `CMYK` goes through RGB, `rotated` is turned upright as its EXIF says.
"""

import hashlib
import io
import os
import re
import struct
import sys
import tempfile
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from hybridlungvit.data.sources import DICOM
from hybridlungvit.io import StudyError

MAX_PIXELS = 50_000_000
"""Larger images are refused unread: detectors have up to 20 million pixels, bombs many more."""
MAX_BYTES = 250_000_000
MESSAGES = 5  # at most, of images that cannot be used
MIN_SIDE = 16
"""Pixels: a smaller image shows no lungs."""
REDUCED = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    1: cv2.IMREAD_GRAYSCALE,
}
JPEG_DAMAGE = re.compile(r"(Corrupt|Premature end of) JPEG.*")
"""Of libjpeg's warnings those about the image's data; others are about odd headers."""
ORIENTATION = 0x0112  # the EXIF tag

Facts = tuple[str, int, int, int, str]
"""SHA-256, width, height, size in bytes and note of an image file."""


class Header(NamedTuple):
    """What the first bytes tell of an image that can be used."""

    orientation: int
    """EXIF: 1 is upright, from 5 on width and height change places."""
    depth: int
    """Bits per sample: 8, 16 or, of a PNG, fewer."""
    alpha: bool
    cmyk: bool

    @property
    def note(self) -> str:
        """What had to be done beyond reading, for the manifest; empty for a plain file."""
        steps = {
            "16-bit": self.depth == 16,
            "alpha": self.alpha,
            "CMYK": self.cmyk,
            "rotated": self.orientation != 1,
        }
        return ", ".join(name for name, taken in steps.items() if taken)


def read_bytes(path: Path) -> bytes:
    """The content of a regular file of an image's size; raises ``StudyError`` for anything else."""
    try:
        status = path.stat()  # follows links, and ends a loop of them
        if not path.is_file():
            raise _refusal(path, "is no regular file")
        if status.st_size > MAX_BYTES:
            raise _refusal(path, f"has {status.st_size:,} bytes, more than {MAX_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise _refusal(path, f"cannot be read ({error.strerror or error})") from None


def inspect_image(path: Path) -> Facts:
    """What the manifest tells of a file; raises ``StudyError`` for one of no use.

    Decodes everything, to find truncated files.
    """
    content = read_bytes(path)
    image, header = open_image(content, path)
    try:
        if image.format == "PNG":
            image.load()
            _require_sound_png(content, image.width, image.height)
        else:
            _require_sound_jpeg(content)
    except Exception as error:  # neither decoder promises what it raises
        raise _unreadable(path, error) from None
    width, height = image.size if header.orientation < 5 else image.size[::-1]
    return hashlib.sha256(content).hexdigest(), width, height, len(content), header.note


def _require_sound_jpeg(content: bytes) -> None:
    """Raise ``ValueError`` for what libjpeg warns of: data that is cut, overwritten or lost.

    It then fills in grey. Pillow drops its warnings; OpenCV lets them go to file descriptor 2.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile(buffering=0) as caught:
        kept = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            # An eighth of the size: all of the file is read, and little is computed.
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), REDUCED[8])
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        caught.seek(0)
        warning = JPEG_DAMAGE.search(caught.read().decode(errors="replace"))
    if pixels is None or warning:
        raise ValueError(warning[0] if warning else "its data end too early or are damaged")


def _require_sound_png(content: bytes, width: int, height: int) -> None:
    """Raise ``ValueError`` where the compressed pixels hold far more than an image of this size."""
    channels = {2: 3, 4: 2, 6: 4}.get(content[25], 1)
    row = -(-width * channels * content[24] // 8) + 1
    left = 2 * height * row + 64  # interlaced images need a little more than their rows
    stream, position, kind = zlib.decompressobj(), 8, b""
    while position + 8 <= len(content) and kind != b"IEND":  # what follows is read by nobody
        size, kind = struct.unpack_from(">I4s", content, position)
        if kind == b"IDAT":
            left -= len(stream.decompress(content[position + 8 : position + 8 + size], left))
            if left <= 0:
                raise ValueError("compressed data far beyond its pixels")
        position += 12 + size


def try_inspect(path: Path) -> Facts | str:
    """As ``inspect_image``, with what is wrong as a text: all bad images are told at once."""
    try:
        return inspect_image(path)
    except StudyError as error:
        return str(error)


def require_usable(results: Sequence[object], what: str = "images") -> None:
    """Raise ``StudyError`` with the first ``MESSAGES`` of what is wrong, given as text."""
    faults = [result for result in results if isinstance(result, str)]
    if faults:
        more = len(faults) - MESSAGES
        rest = [f"… and {more} further {what}."] if more > 0 else []
        raise StudyError("\n".join([*faults[:MESSAGES], *rest]))


def decode_grey(content: bytes, path: Path, detail: int) -> np.ndarray:
    """Decode to upright grey uint8 (H, W).

    libjpeg shrinks plain JPEG files while both sides keep at least ``detail`` pixels. ``path`` is
    for messages: raises ``StudyError`` for what cannot be decoded.
    """
    image, header = open_image(content, path)
    try:
        if header.cmyk:
            grey = np.asarray(image.convert("RGB").convert("L"))
        elif header.alpha and header.depth <= 8:
            black = Image.new("RGBA", image.size, "black")
            grey = np.asarray(Image.alpha_composite(black, image.convert("RGBA")).convert("L"))
        else:
            shortest = 0 if image.format == "PNG" else min(image.size)
            flags = next(REDUCED[s] for s in REDUCED if s == 1 or shortest // s >= detail)
            flags |= cv2.IMREAD_IGNORE_ORIENTATION
            if header.depth == 16:
                flags = cv2.IMREAD_UNCHANGED
            grey = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
            if grey is None:
                raise ValueError("the decoder gave nothing")
            if header.depth == 16:
                grey = _stretched(grey)
    except Exception as error:  # neither decoder promises what it raises
        raise _unreadable(path, error) from None
    if header.orientation == 1:
        return grey
    picture = Image.fromarray(grey)
    picture.getexif()[ORIENTATION] = header.orientation
    return np.array(ImageOps.exif_transpose(picture))


def read_grey(path: Path, detail: int) -> np.ndarray:
    """Read a file and decode it: see :func:`decode_grey`."""
    return decode_grey(read_bytes(path), path, detail)


def open_image(content: bytes, path: Path) -> tuple[Image.Image, Header]:
    """A Pillow image whose pixels are not decoded yet; raises ``StudyError`` for one of no use."""
    if content[128:132] == b"DICM":
        raise StudyError(f"{path}: {DICOM}")
    too_large = f"more than {MAX_PIXELS:,} pixels; not read"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images: judged below, by a limit of our own
            image = Image.open(io.BytesIO(content), formats=("JPEG", "PNG"))
    except Image.DecompressionBombError:
        raise _refusal(path, f"has far {too_large}") from None
    except Exception:
        reason = "holds no JPEG or PNG image" if content else "is empty"
        raise _refusal(path, reason) from None
    size = "{:,} × {:,} px".format(*image.size)
    if image.width * image.height > MAX_PIXELS:
        raise _refusal(path, f"has {size}: {too_large}")
    if min(image.size) < MIN_SIDE:
        raise _refusal(path, f"is {size}; each side needs at least {MIN_SIDE}")
    is_png, frames = image.format == "PNG", getattr(image, "n_frames", 1)
    if is_png and frames > 1:
        raise _refusal(path, f"is an animation of {frames} pictures; keep one")
    try:
        # A PNG's late EXIF is not looked for: that would decode the image.
        has_exif = not is_png or "exif" in image.info
        orientation = image.getexif().get(ORIENTATION) if has_exif else 1
    except Exception:  # a damaged EXIF block says nothing about the pixels
        orientation = 1
    return image, Header(
        orientation=orientation if orientation in range(1, 9) else 1,
        depth=content[24] if is_png else 8,
        alpha="A" in image.mode or "transparency" in image.info,
        cmyk=image.mode == "CMYK",
    )


def _stretched(pixels: np.ndarray) -> np.ndarray:
    """uint16 (H, W), (H, W, 3) or (H, W, 4) → uint8 (H, W), darkest to 0 and brightest to 255.

    Detectors store 10 to 14 bits in 16 and do not say how many: dividing by 256 would darken them.
    """
    values = pixels.astype(np.float32)
    if values.ndim == 3:
        grey = cv2.cvtColor(np.ascontiguousarray(values[..., :3]), cv2.COLOR_BGR2GRAY)
        values = grey * (values[..., 3] / 65535) if values.shape[2] == 4 else grey
    low, high = float(values.min()), float(values.max())
    return np.rint((values - low) * (255 / max(high - low, 1))).astype(np.uint8)


def _refusal(path: Path, reason: str) -> StudyError:
    return StudyError(f"{path}: {reason}. Replace it or remove it from the folder.")


def _unreadable(path: Path, reason: object) -> StudyError:
    return _refusal(path, f"cannot be read as an image ({reason})")
