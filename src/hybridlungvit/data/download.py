"""Fetching one large file over HTTP: resumed after an interruption, bounded, checked, atomic."""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema

from hybridlungvit.errors import StudyError
from hybridlungvit.files import file_sha256, write_text
from hybridlungvit.progress import track

try:
    import fcntl
except ImportError:  # no such locks on Windows
    fcntl = None

log = logging.getLogger(__name__)
BLOCK = 1 << 16
LARGEST = 10_000_000_000
"""Bytes: no source of ours is larger, so an endless answer does not fill the disk."""


@dataclass(frozen=True)
class Patience:
    """Seconds to wait for a connection and for each block, and attempts without any progress."""

    connect: float = 20
    read: float = 60
    attempts: int = 6
    pause: float = 2.0
    """Before the second attempt; doubled before each further one."""


class _Interrupted(Exception):
    """The transfer broke off; another attempt may go on from there."""


def fetch(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    checksum: str | None = None,
    patience: Patience = Patience(),
) -> str:
    """Bring ``url`` to ``target`` unless it is there already; returns its SHA-256.

    A broken transfer leaves ``.NAME.part``, from which the next one goes on. ``checksum`` is an MD5
    (32 hex digits) or a SHA-256 (64). Without one, the SHA-256 of the first file fetched is written
    to ``NAME.sha256`` and asked of every later one: trust on first use.

    Raises ``StudyError`` for a file that is refused, does not come or is not the one expected.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    with _alone(part):
        if target.is_file():
            return _check(target, target, url, checksum)
        _transfer(url, part, size, patience)
        try:
            _require_size(url, _length(part), size)
            digest = _check(part, target, url, checksum)
        except StudyError:
            part.unlink()
            raise
        part.replace(target)
        part.with_suffix(".etag").unlink(missing_ok=True)
        return digest


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Hold a lock: two transfers into one file would mix."""
    lock = part.with_suffix(".lock")
    try:
        with lock.open("w") as stream:
            try:
                if fcntl is not None:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StudyError(
                    f"{part.parent}: another download into this folder is running. Wait for it."
                ) from None
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    except OSError as error:
        raise StudyError(
            f"{part.parent}: cannot be written ({error.strerror or error})."
        ) from error


def _require_size(url: str, found: int | None, size: int | None) -> None:
    if size is not None and found != size:
        raise StudyError(
            f"{url}: gives {found:,} bytes instead of {size:,}: not the file expected here. "
            "If the publisher has replaced it, give its SHA-256 as data.checksum."
        )


def _transfer(url: str, part: Path, size: int | None, patience: Patience) -> None:
    failures, pause = 0, patience.pause
    while True:
        before = _length(part)
        try:
            return _attempt(url, part, size, patience)
        except _Interrupted as error:
            progressed = _length(part) > before
            failures = 1 if progressed else failures + 1
            if failures >= patience.attempts:
                raise StudyError(
                    f"{url}: gave up after {failures} attempts without progress ({error}). "
                    f"{_length(part):,} bytes are kept; the same command goes on from there."
                ) from None
            pause = patience.pause if progressed else pause * 2
            log.warning("%s; going on at byte %d in %.0f s", error, _length(part), pause)
            time.sleep(pause)


def _attempt(url: str, part: Path, size: int | None, patience: Patience) -> None:
    """One request, from where the last one ended; raises ``_Interrupted`` for passing failures."""
    have, etag_file = _length(part), part.with_suffix(".etag")
    headers = {"Accept-Encoding": "identity", "User-Agent": "hybridlungvit"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if etag_file.is_file():  # a file replaced meanwhile comes whole
            headers["If-Range"] = etag_file.read_text(encoding="utf-8")
    try:
        with requests.get(
            url, headers=headers, stream=True, timeout=(patience.connect, patience.read)
        ) as answer:
            start, total = _accept(answer, url, part, have)
            _require_size(url, total if total is not None else size, size)
            etag = answer.headers.get("ETag", "")
            if etag and not etag.startswith("W/"):
                write_text(etag_file, etag)
            else:
                etag_file.unlink(missing_ok=True)
            _require_space(part, (total or size or 0) - start)
            _write(answer, part, start, total)
    except (InvalidSchema, InvalidURL, MissingSchema) as error:
        raise StudyError(f"{url}: no address to download from ({error}).") from None
    except requests.RequestException as error:
        raise _Interrupted(f"{type(error).__name__} from {url}") from None


def _accept(answer: requests.Response, url: str, part: Path, have: int) -> tuple[int, int | None]:
    """Where the answer begins, and the file's whole length if told."""
    if url.startswith("https:") and not answer.url.startswith("https:"):
        raise StudyError(f"{url}: leads to {answer.url}, without encryption. Refused.")
    status = answer.status_code
    if status == 206:
        span, _, total = answer.headers.get("Content-Range", "").partition("/")
        if span.removeprefix("bytes ").split("-")[0] != str(have):
            part.unlink()
            raise _Interrupted("the server went on at another place")
        return have, int(total) if total.isdigit() else None
    if status == 416:  # we may have it all, or too much
        _, _, total = answer.headers.get("Content-Range", "").partition("/")
        if total == str(have):
            return have, have
        part.unlink(missing_ok=True)
        raise _Interrupted("the kept part does not fit the file")
    if status == 200:
        length = answer.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    if status in (408, 425, 429) or status >= 500:
        raise _Interrupted(f"status {status} from {url}")
    raise StudyError(
        f"{url}: the server answers {status} {answer.reason}. Download the file with a browser and "
        f"put it at {part.with_name(part.name[1:].removesuffix('.part'))}, or give another address "
        "as data.url."
    )


def _write(answer: requests.Response, part: Path, start: int, total: int | None) -> None:
    if start == total:
        return
    blocks = answer.iter_content(BLOCK)
    count = -(-(total - start) // BLOCK) if total else LARGEST // BLOCK
    written = start
    with part.open("r+b" if start else "wb") as stream:
        stream.seek(start)
        for block in track(blocks, max(count, 1), "downloading"):
            written += len(block)
            if written > (total if total is not None else LARGEST):
                raise StudyError(f"{answer.url}: sends more than it announced. Refused.")
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    if total is not None and written < total:
        raise _Interrupted(f"the answer ended after {written:,} of {total:,} bytes")


def _require_space(part: Path, missing: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if missing > free:
        raise StudyError(
            f"{part.parent}: {missing:,} bytes are to come and {free:,} are free. Make room."
        )


def _check(file: Path, target: Path, url: str, checksum: str | None) -> str:
    """The file's SHA-256, once it agrees with the checksum known of ``target``."""
    digest = file_sha256(file)
    known, kept = checksum, target.with_name(f"{target.name}.sha256")
    if known is None and kept.is_file():
        known = kept.read_text(encoding="utf-8").partition(" ")[0]
    if known is None:
        write_text(kept, f"{digest}  {target.name}\n")
        log.warning(
            "no checksum of %s is published: its SHA-256, %s, is written to %s and asked of every "
            "later download", target.name, digest, kept,
        )  # fmt: skip
        return digest
    found = _md5(file) if len(known) == 32 else digest
    if found != known.lower():
        source = "data.checksum or the publisher" if checksum else str(kept)
        raise StudyError(
            f"{target}: from {url} came a file with the checksum {found}, but {source} says "
            f"{known}. Delete it and download again, or mend the checksum if that is wrong."
        )
    return digest


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        # No safeguard against malice, but what the publisher tells.
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _length(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0
