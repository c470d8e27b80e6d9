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
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from hybridlungvit.data.sources import DICOM
from hybridlungvit.io import StudyError

FORMATS = ("JPEG", "PNG")
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
OTHER_FORMATS = {b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"%PDF": "PDF"}


Facts = tuple[str, int, int, int, str]
"""SHA-256, width, height, size in bytes and note of an image file."""


@dataclass(frozen=True)
class Header:
    """What the first bytes tell of an image that can be used."""

    format: str
    width: int
    """Pixels of the upright image, as is the height."""
    height: int
    orientation: int
    """EXIF: 1 is upright."""
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
    with _opened(content, path) as image:
        header = _header(image, content, path)
        if header.format != "PNG":
            _require_sound_jpeg(content, path)
        else:
            _require_sound_png(image, content, path)
    digest = hashlib.sha256(content).hexdigest()
    return digest, header.width, header.height, len(content), header.note


def _require_sound_jpeg(content: bytes, path: Path) -> None:
    """Raise ``StudyError`` for what libjpeg warns of: data that is cut, overwritten or lost.

    It then fills in grey. Pillow drops its warnings; OpenCV lets them go to file descriptor 2.
    """
    caught = _caught()
    caught.seek(0)
    caught.truncate()
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(caught.fileno(), 2)
    try:
        # An eighth of the size: all of the file is read, and little is computed.
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), REDUCED[8])
    except cv2.error as error:
        raise _unreadable(path, error) from None
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    caught.seek(0)
    warning = JPEG_DAMAGE.search(caught.read().decode(errors="replace"))
    if pixels is None or warning:
        raise _unreadable(path, warning[0] if warning else "its data end too early or are damaged")


@cache
def _caught() -> BinaryIO:
    """A nameless file for what a decoder prints, open while the process lives."""
    return tempfile.TemporaryFile(buffering=0)


def _require_sound_png(image: Image.Image, content: bytes, path: Path) -> None:
    """Raise ``StudyError`` for pixels that cannot be decoded, or hold far more than the image."""
    channels = {2: 3, 4: 2, 6: 4}.get(content[25], 1)
    row = -(-image.width * channels * content[24] // 8) + 1
    left = 2 * image.height * row + 64  # interlaced images need a little more than their rows
    stream, position = zlib.decompressobj(), 8
    try:
        image.load()
        while position + 8 <= len(content) and left > 0:
            size, kind = struct.unpack_from(">I4s", content, position)
            if kind == b"IEND":  # what follows is read by nobody
                break
            if kind == b"IDAT":
                data = content[position + 8 : position + 8 + size]
                left -= len(stream.decompress(data, left))
            position += 12 + size
    except Exception as error:  # PIL's decoders raise whatever they like
        raise _unreadable(path, error) from None
    if left <= 0:
        raise _refusal(path, "holds compressed data far beyond its pixels")


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
    with _opened(content, path) as image:
        header = _header(image, content, path)
        try:
            if header.cmyk or (header.alpha and header.depth == 8):
                grey = _through_pillow(image)
            else:
                grey = _through_opencv(content, header, detail)
        except StudyError:
            raise
        except Exception as error:  # neither decoder promises what it raises
            raise _unreadable(path, error) from None
    if grey is None:
        raise _unreadable(path, "the decoder gave nothing")
    return _upright(grey, header.orientation)


def read_grey(path: Path, detail: int) -> np.ndarray:
    """Read a file and decode it: see :func:`decode_grey`."""
    return decode_grey(read_bytes(path), path, detail)


def _opened(content: bytes, path: Path) -> Image.Image:
    """A Pillow image whose pixels are not decoded yet."""
    if content[128:132] == b"DICM":
        raise StudyError(f"{path}: {DICOM}")
    if not content:
        raise _refusal(path, "is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images: judged below, by a limit of our own
            return Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        raise _too_large(path, "far") from None
    except Exception:
        names = (name for start, name in OTHER_FORMATS.items() if content.startswith(start))
        kind = next(names, None)
        reason = f"is a {kind} file; convert it to PNG" if kind else "holds no JPEG or PNG image"
        raise _refusal(path, reason) from None


def _header(image: Image.Image, content: bytes, path: Path) -> Header:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(path, f"{width:,} × {height:,} px:")
    if min(width, height) < MIN_SIDE:
        raise _refusal(path, f"is {width} × {height} px; each side needs at least {MIN_SIDE}")
    try:
        if image.format == "PNG" and getattr(image, "n_frames", 1) > 1:
            raise _refusal(path, f"is an animation of {image.n_frames} pictures; keep one")
        # A PNG's late EXIF is not looked for: that would decode the image.
        has_exif = image.format != "PNG" or "exif" in image.info
        orientation = image.getexif().get(0x0112, 1) if has_exif else 1
    except StudyError:
        raise
    except Exception:  # a damaged EXIF block says nothing about the pixels
        orientation = 1
    if orientation not in range(1, 9):
        orientation = 1
    if orientation >= 5:
        width, height = height, width
    return Header(
        format=image.format,
        width=width,
        height=height,
        orientation=orientation,
        depth=content[24] if image.format == "PNG" else 8,
        alpha="A" in image.mode or "transparency" in image.info,
        cmyk=image.mode == "CMYK",
    )


def _through_opencv(content: bytes, header: Header, detail: int) -> np.ndarray | None:
    if header.depth == 16:
        return _stretched(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED))
    shrink = 1
    if header.format != "PNG":
        shortest = min(header.width, header.height)
        shrink = next(s for s in REDUCED if s == 1 or shortest // s >= detail)
    flags = REDUCED[shrink] | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(content, np.uint8), flags)


def _through_pillow(image: Image.Image) -> np.ndarray:
    if image.mode == "CMYK":
        return np.asarray(image.convert("RGB").convert("L"))
    colours = image.convert("RGBA")
    black = Image.new("RGBA", colours.size, (0, 0, 0, 255))
    return np.asarray(Image.alpha_composite(black, colours).convert("L"))


def _stretched(pixels: np.ndarray | None) -> np.ndarray | None:
    """uint16 (H, W), (H, W, 3) or (H, W, 4) → uint8 (H, W), darkest to 0 and brightest to 255.

    Detectors store 10 to 14 bits in 16 and do not say how many: dividing by 256 would darken them.
    """
    if pixels is None:
        return None
    values = pixels.astype(np.float32)
    if values.ndim == 3:
        grey = cv2.cvtColor(np.ascontiguousarray(values[..., :3]), cv2.COLOR_BGR2GRAY)
        values = grey * (values[..., 3] / 65535) if values.shape[2] == 4 else grey
    low, high = float(values.min()), float(values.max())
    return np.rint((values - low) * (255 / max(high - low, 1))).astype(np.uint8)


def _upright(grey: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the EXIF orientation: 2 to 4 flip or turn, 5 to 8 exchange the axes too."""
    if orientation >= 5:
        grey = grey.T
    if orientation in (3, 4, 7, 8):
        grey = grey[::-1]
    if orientation in (2, 3, 6, 7):
        grey = grey[:, ::-1]
    return np.ascontiguousarray(grey)


def _refusal(path: Path, reason: str) -> StudyError:
    return StudyError(f"{path}: {reason}. Replace it or remove it from the folder.")


def _unreadable(path: Path, reason: object) -> StudyError:
    return StudyError(
        f"{path}: cannot be read as an image ({reason}). "
        "Fetch it again or remove it from the folder."
    )


def _too_large(path: Path, size: str) -> StudyError:
    return _refusal(path, f"{size} more than {MAX_PIXELS:,} pixels; not read. Shrink it")
