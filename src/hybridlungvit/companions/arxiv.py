"""The paper's sources as one tarball that compiles by itself, as arXiv wants it."""

import gzip
import io
import logging
import tarfile
from pathlib import Path

from hybridlungvit.config import Study
from hybridlungvit.io import StudyError, replacing
from hybridlungvit.paper.manuscript import manuscript_paths
from hybridlungvit.paths import Layout

log = logging.getLogger(__name__)
MAIN = "ms"  # the main file's name; arXiv takes the bibliography from the .bbl beside it


def pack_sources(study: Study, layout: Layout) -> None:
    """Write ``layout.tarball``: TeX sources, generated files, figures and the bibliography as .bbl.

    Everything carries one date and stands in one order, so that equal sources give equal bytes.
    Raises ``StudyError`` when the paper has not been compiled.
    """
    bibliography = layout.paper / "build" / study.study / f"{study.study}.bbl"
    if not bibliography.is_file():
        raise StudyError(
            f"{bibliography}: not found. Compile the paper first (`pdf`, with latexmk)."
        )
    main = layout.paper / "main.tex"
    files = {f"{MAIN}.tex": _named(study.study, main), f"{MAIN}.bbl": bibliography.read_bytes()}
    sources = [path for path in manuscript_paths(layout.paper) if path != main]
    sources += [*layout.generated.glob("*.tex"), *layout.generated.glob("tables/*.tex"),
                *layout.generated.glob("figures/*.pdf")]  # fmt: skip
    files |= {p.relative_to(layout.paper).as_posix(): p.read_bytes() for p in sources}
    with (
        replacing(layout.tarball) as temporary,
        temporary.open("wb") as stream,
        gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    log.info("%s written, %d files", layout.tarball, len(files))


def _named(study: str, main: Path) -> bytes:
    """The main file with the study's name set, which the build otherwise gives from outside."""
    return rf"\def\study{{{study}}}".encode() + b"\n" + main.read_bytes()
