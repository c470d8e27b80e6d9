"""Files that can be trusted after a crash: atomic writes, content hashes, and plain errors."""

import glob
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import pandas as pd


MAKE_IT = (
    "Run the workflow that writes it: `make demo` for the demo, otherwise `snakemake --configfile "
    "config/<study>.yaml`."
)


class StudyError(Exception):
    """Bad input, a missing file or a contradiction, told in one message.

    The message names the file or key, says what was expected and how to mend it. The command line
    prints it without a traceback and exits with status 1.
    """


@contextmanager
def telling(path: Path, what: str) -> Iterator[None]:
    """Tell the system's refusal as ``path`` that "cannot be" ``what``, as a ``StudyError``."""
    try:
        yield
    except OSError as error:
        raise StudyError(f"{path}: cannot be {what} ({error.strerror or error}).") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it there only if the block succeeds.

    Readers therefore see the old file or the whole new one, never a part. Raises ``StudyError``
    when the disk refuses.
    """
    import fcntl  # not on Windows, where the command line still has to say so

    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    with telling(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # until closed: tells it from what a killed process left
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StudyError(
            f"{path}: cannot be written ({error.strerror or error}). "
            "Free space or mend the permissions and run again; the earlier file is untouched."
        ) from error
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of processes that were killed while ``replacing`` ``path``."""
    import fcntl

    for leftover in path.parent.glob(f".{glob.escape(path.stem)}-????????{path.suffix}"):
        with leftover.open("rb") as stream, suppress(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in the order given, floats to their last digit."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_record(path: Path, value: Any) -> Any:
    """Write results as JSON with their floats ``rounded``; returns what was written.

    Processors, their vector instructions and numerical libraries sum in different orders, so the
    last digits of a result belong to a machine. They are dropped here, once, for every result.
    """
    value = rounded(value)
    write_json(path, value)
    return value


def rounded(value: Any) -> Any:
    """A JSON-able value whose floats keep nine significant digits and at most twelve decimals.

    More than anyone prints, and far from the sixteenth digit, in which machines differ. The bound
    on decimals is for what should be zero: a difference of equal sums.
    """
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return round(float(f"{value:.9g}"), 12) + 0.0 if isinstance(value, float) else value


class Record(dict[str, Any]):
    """A JSON object that names its file when a key is missing."""

    latest: ClassVar[tuple[Path, str] | None] = None
    """The file and key that were read last, for ``blaming_records``."""

    def __init__(self, values: dict[str, Any], path: Path) -> None:
        super().__init__(values)
        self.path = path

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        Record.latest = (self.path, key)
        return value

    def __missing__(self, key: str) -> Any:
        raise StudyError(f"{self.path}: has no {key!r}. Delete it and run again.")


@contextmanager
def blaming_records() -> Iterator[None]:
    """Tell a failure of what only reads records as what it is: a value of another kind.

    For the commands that put results into words; in what computes it would hide mistakes.
    """
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        if Record.latest is None:
            raise
        path, key = Record.latest
        raise StudyError(
            f"{path}: the value of {key!r} is not of the kind expected ({error}). Restore the file "
            "or delete it and run again."
        ) from error


def read_json(path: Path) -> Record:
    """Read a JSON object; raise ``StudyError`` when the file is missing or no such object.

    So does the object itself, at any depth, when it is asked for a key it does not have.
    """
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text, object_hook=lambda values: Record(values, path))
    except FileNotFoundError as error:
        raise StudyError(f"{path}: not found. {MAKE_IT}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path}: not valid JSON ({error}). Delete it and run again.") from error
    if not isinstance(value, Record):
        raise StudyError(f"{path}: holds no JSON object. Delete it and run again.")
    return value


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, those of linked folders too, sorted; raises ``OSError``."""

    def fail(error: OSError) -> None:
        raise error

    walk = os.walk(folder, onerror=fail, followlinks=True)
    found = (Path(place) / name for place, _, names in walk for name in names)
    return sorted(path for path in found if path.is_file())


def folder_sha256(folder: Path) -> str:
    """Hash over the names and the content of all files below a folder, as 64 hex digits."""
    files = files_below(folder)
    return value_sha256([(ascii(path.relative_to(folder)), file_sha256(path)) for path in files])


def value_sha256(value: Any) -> str:
    """SHA-256 of a JSON-able value in canonical form (sorted keys, no white space)."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_table(
    path: Path,
    columns: Sequence[str],
    types: dict[str, type] | None = None,
    mend: str | None = None,
) -> "pd.DataFrame":
    """Read a CSV; raise ``StudyError`` when it is missing, damaged or lacks one of the columns.

    With ``types`` no field is a missing value: "NA" may be a patient's name, and an empty field is
    an empty text. ``mend`` says what to do about a table of the user's own, which no stage writes.
    """
    import pandas as pd  # takes long to import, and most commands read no table

    again = mend or "Delete it and run again."
    try:
        table = pd.read_csv(path, dtype=types, na_filter=types is None)
    except FileNotFoundError as error:
        advice = mend or MAKE_IT
        raise StudyError(f"{path}: not found. {advice}") from error
    except (OSError, ValueError, OverflowError) as error:  # pandas' own errors are ValueErrors
        raise StudyError(f"{path}: damaged ({error}). {again}") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        there = ", ".join(map(str, table.columns[:5]))
        raise StudyError(f"{path}: lacks the columns {', '.join(missing)}; has {there}. {again}")
    return table


def write_table(path: Path, table: "pd.DataFrame", float_format: str | None = None) -> None:
    """Write a data frame as CSV, atomically and without its index."""
    write_text(path, table.to_csv(index=False, float_format=float_format, lineterminator="\n"))
