"""From LaTeX to PDF."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from hybridlungvit.config import Study
from hybridlungvit.io import StudyError
from hybridlungvit.io import replacing
from hybridlungvit.paths import Layout

FIXED_DATE = {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}


def build_pdf(study: Study, layout: Layout) -> None:
    """Compile ``paper/main.tex`` for a study and put the PDF at ``layout.pdf``.

    Raises ``StudyError`` with the first TeX error and the log's path, or when no TeX is there.
    """
    name = study.study
    build = layout.paper / "build" / name
    build.mkdir(parents=True, exist_ok=True)
    if shutil.which("latexmk"):
        # A definition before the file: the same text serves every study.
        define = rf"\def\study{{{name}}}"
        command = ["latexmk", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-g",
                   f"-jobname={name}", f"-outdir=build/{name}", f"-usepretex={define}",
                   "main.tex"]  # fmt: skip
        folder = layout.paper
    elif shutil.which("tectonic"):
        (build / f"{name}.tex").write_text(rf"\def\study{{{name}}}\input{{main.tex}}" + "\n")
        command = ["tectonic", "--keep-logs", "-Z", f"search-path={layout.paper.resolve()}",
                   "--outdir", ".", f"{name}.tex"]  # fmt: skip
        folder = build
    else:
        raise StudyError(
            "no TeX engine found: latexmk or tectonic. On Debian or Ubuntu: `make setup`; "
            "with conda: `conda install -c conda-forge tectonic`."
        )
    environment = os.environ | FIXED_DATE
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace"
    )
    result = build / f"{name}.pdf"
    if done.returncode or not result.is_file():
        log = build / f"{name}.log"
        raise StudyError(f"{layout.pdf}: LaTeX failed; see {log}.\n{_first_error(log, done)}")
    with replacing(layout.pdf) as temporary:
        shutil.copyfile(result, temporary)


def _first_error(log: Path, done: subprocess.CompletedProcess[str]) -> str:
    text = log.read_text(errors="replace") if log.is_file() else done.stdout + done.stderr
    found = re.search(r"^! .*(?:\n.*){0,6}", text, re.MULTILINE)
    return found[0] if found else (done.stdout + done.stderr)[-1500:]
