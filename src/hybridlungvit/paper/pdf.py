"""From LaTeX to the PDF, and to the tarball of sources that compiles by itself."""

import gzip
import io
import logging
import os
import re
import shutil
import signal
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path

from hybridlungvit.config import Study
from hybridlungvit.io import StudyError, replacing
from hybridlungvit.paper.manuscript import manuscript_paths
from hybridlungvit.paths import Layout

log = logging.getLogger(__name__)
FIXED_DATE = {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}
# Results come from strangers too: they run no program. Latexmk would hand names that TeX prints to
# a shell. What TeX may read is bounded, but not for all its commands: see ``_require_mere_table``.
PDFLATEX = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error"]
INSIDE = {"openin_any": "p", "openout_any": "p", "max_print_line": "1000"}
PLAIN = re.compile(
    r"\\(?:begin|end)\{tabular\}|\\(?:top|mid|bottom)rule\b|\\phantom\b|\\\\|\\,|\\%"
)
"""The commands of the one table that is not made anew with the paper."""
UNSETTLED = re.compile(r"Rerun (to get|LaTeX)")
MOST_RUNS = 6  # of pdflatex; a paper takes four
TIME_LIMIT = 600  # seconds a run; one takes some 5
MAIN = "ms"  # the tarball's main file; arXiv takes the bibliography from the .bbl beside it


def build_pdf(study: Study, layout: Layout) -> None:
    """Compile ``paper/main.tex`` for a study and put the PDF at ``layout.pdf``.

    Raises ``StudyError`` with the first TeX error and the log's path, or when no TeX is there.
    """
    name = study.study
    build = layout.paper / "build" / name
    _require_mere_table(layout.generated / "tables" / "mask_benchmark.tex")
    shutil.rmtree(build, ignore_errors=True)  # TeX reads files of an earlier build before others
    build.mkdir(parents=True)
    report, result = build / f"{name}.log", build / f"{name}.pdf"
    # A definition before the file: the same text serves every study.
    text = rf"\def\study{{{name}}}\input{{main.tex}}"
    if shutil.which("pdflatex"):
        done = run_latex(name, text, layout.paper, f"build/{name}")
    elif shutil.which("tectonic"):
        # It runs no shell unless told to; its mode for untrusted sources would take no search path.
        (build / f"{name}.tex").write_text(text + "\n")
        command = ["tectonic", "--keep-logs", "-Z", f"search-path={layout.paper.resolve()}",
                   "--outdir", ".", f"{name}.tex"]  # fmt: skip
        done = run_tex(command, build)
    else:
        raise StudyError(
            "no TeX engine found: pdflatex or tectonic. On Debian or Ubuntu: `make setup`; "
            "with conda: `conda install -c conda-forge tectonic`."
        )
    if done.returncode or not result.is_file():
        output = done.stdout + done.stderr
        text = report.read_text(errors="replace") if report.is_file() else output
        error = re.search(r"^! .*(?:\n.*){0,6}", text, re.MULTILINE)
        shown = error[0] if error else output[-1500:]
        raise StudyError(f"{layout.pdf}: LaTeX failed; see {report}.\n{shown}")
    with replacing(layout.pdf) as temporary:
        shutil.copyfile(result, temporary)


def _require_mere_table(table: Path) -> None:
    """Raise ``StudyError`` for a table whose TeX does more than print."""
    if table.is_file():
        rest = PLAIN.sub("", table.read_text(encoding="utf-8", errors="replace"))
        if "\\" in rest or "^^" in rest:
            raise StudyError(f"{table}: holds other TeX than that of a table. Make it anew.")


def run_latex(
    name: str, text: str, folder: Path, output: str, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Compile TeX ``text`` in ``folder`` to NAME.pdf in its folder ``output``, until it is settled.

    Returns the last run, or the first that failed.
    """
    latex = [*PDFLATEX, f"-jobname={name}", f"-output-directory={output}", text]
    variables = INSIDE | (variables or {})
    files = [folder / output / f"{name}.{suffix}" for suffix in ("aux", "log")]
    runs, cites = 0, True
    while True:
        done = run_tex(latex, folder, variables)
        runs += 1
        auxiliary, report = (f.read_text(errors="replace") if f.is_file() else "" for f in files)
        if done.returncode or runs == MOST_RUNS:
            return done
        if cites and r"\bibdata" in auxiliary:
            done = run_tex(["bibtex", f"{output}/{name}"], folder, variables)
            if done.returncode:
                return done
        elif not UNSETTLED.search(report):
            return done
        cites = False


def run_tex(
    command: list[str], folder: Path, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run TeX; raises ``StudyError`` when it takes longer than ``TIME_LIMIT``.

    In a process group of its own, of which nothing is left when TeX or we are stopped.
    """
    options = {"cwd": folder, "start_new_session": True}
    options["env"] = os.environ | FIXED_DATE | (variables or {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **options, **pipes, errors="replace") as process:
        try:
            output, errors = process.communicate(timeout=TIME_LIMIT)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise StudyError(
                    f"{folder}: {command[0]} was stopped after {TIME_LIMIT} s; a loop in the text?"
                ) from None
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def pack_sources(study: Study, layout: Layout) -> None:
    """Write ``layout.tarball``: TeX sources, generated files, figures and the bibliography as .bbl.

    Everything carries one date and stands in one order, so that equal sources give equal bytes.
    Raises ``StudyError`` when the paper has not been compiled.
    """
    bibliography = layout.paper / "build" / study.study / f"{study.study}.bbl"
    if not bibliography.is_file():
        raise StudyError(
            f"{bibliography}: not found. Compile the paper first (`pdf`, with pdflatex)."
        )
    main = layout.paper / "main.tex"
    # The study's name, which the build otherwise gives from outside.
    named = rf"\def\study{{{study.study}}}".encode() + b"\n" + main.read_bytes()
    files = {f"{MAIN}.tex": named, f"{MAIN}.bbl": bibliography.read_bytes()}
    sources = [path for path in manuscript_paths(layout.paper) if path != main]
    sources += [*layout.generated.glob("*.tex"), *layout.generated.glob("tables/*.tex"),
                *layout.generated.glob("figures/*.pdf")]  # fmt: skip
    links = [path for path in sources if path.is_symlink()]
    if links:
        raise StudyError(f"{links[0]}: is a link, which may lead to any file. Remove it.")
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
