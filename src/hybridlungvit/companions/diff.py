"""What changed between two versions of a study's paper, marked by latexdiff."""

import logging
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

from hybridlungvit.config import Study
from hybridlungvit.io import StudyError, replacing
from hybridlungvit.paper.manuscript import KEYS, argument_end, commands, read_source
from hybridlungvit.paper.pdf import run_latex, run_tex
from hybridlungvit.paths import Layout

log = logging.getLogger(__name__)
Meanings = dict[str, tuple[int, Callable[..., str]]]
"""Of each command its number of arguments, and what it prints for them."""
COMMAND = re.compile(r"\\([A-Za-z]+)")
ENDS_IN_COMMAND = re.compile(r"(\\[A-Za-z]+)$")
SECTION = re.compile(r"\\input\{(sections/[^}]*?)(?:\.tex)?\}")
SIGNED = re.compile(r"(?:\\ensuremath\{|\$)([-+])([\d.]+)[}$]")
TABLE = r"""{\footnotesize\setlength{\tabcolsep}{4.5pt}%%
\begin{adjustbox}{max width=\linewidth,center}
%s\end{adjustbox}}"""
# latexdiff leaves what is in this environment as it is.
WHOLE = r"""\begin{DIFnomarkup}
{\color{blue}\footnotesize (the table has other columns than before)\par}
%s\end{DIFnomarkup}"""


NEEDED = {"latexdiff": "latexdiff", "ulem.sty": "texlive-plain-generic"}
"""Programs and styles, each with the Debian package that holds it."""


def found(name: str) -> bool:
    """Whether a program, or a style of TeX, is installed."""
    if not name.endswith(".sty"):
        return shutil.which(name) is not None
    asked = ["kpsewhich", name]
    return found(asked[0]) and not subprocess.run(asked, capture_output=True).returncode


def write_diff(study: Study, layout: Layout, against: str) -> Path:
    """Mark what changed in the paper since the git revision ``against``; returns the PDF.

    Both versions are made one text first, in which numbers and tables stand in the place of the
    macros that print them: a changed number is marked as a changed word is. A table with other
    columns is marked as a whole; figures and the bibliography are those of the working folder.
    Raises ``StudyError`` where latexdiff, a figure, the revision or the study's macros in it are
    missing.
    """
    for name, package in NEEDED.items():
        if not found(name):
            raise StudyError(
                f"{name}: not found; it is needed to mark changes. On Debian or Ubuntu: "
                f"`sudo apt-get install {package}`; elsewhere it is a part of TeX Live."
            )
    with tempfile.TemporaryDirectory() as temporary:
        build = Path(temporary)
        _check_out(layout.paper, against, build)
        versions = {"before": build / layout.paper, "after": layout.paper}
        macros = layout.generated / "macros.tex"
        if not (build / macros).is_file():
            raise StudyError(
                f"{against}: no paper of {study.study} in this git revision ({macros}). Name "
                "another with --against, or commit the paper first."
            )
        before, after = (_columns(paper, study.study) for paper in versions.values())
        rebuilt = {name for name in before.keys() & after.keys() if before[name] != after[name]}
        for name, paper in versions.items():
            text = flatten(paper, study.study, rebuilt)
            (build / f"{name}.tex").write_text(text, encoding="utf-8")
        changes = _output(run_tex(["latexdiff", "before.tex", "after.tex"], build))
        (build / "changes.tex").write_text(changes, encoding="utf-8")
        search = {name: f"{layout.paper.resolve()}:" for name in ("TEXINPUTS", "BIBINPUTS")}
        _output(run_latex("changes", "changes.tex", build, ".", search))
        target = layout.paper / f"{study.study}-diff.pdf"
        with replacing(target) as draft:
            shutil.copyfile(build / "changes.pdf", draft)
    log.info("%s written: what changed since %s", target, against)
    return target


def _output(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode:
        error = re.search(r"^! .*(?:\n.*){0,6}", done.stdout, re.MULTILINE)
        reason = error[0] if error else done.stderr[-1500:]
        raise StudyError(f"{done.args[0]} failed; `make paper` draws missing figures. {reason}")
    return done.stdout


def _check_out(paper: Path, revision: str, folder: Path) -> None:
    """Put the folder ``paper`` of a git revision below ``folder``."""
    command = ["git", "archive", "--format=zip", revision, str(paper)]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise StudyError(
            f"{revision}: no git revision with a folder {paper}/ ({reason}). Name a commit, a "
            "branch or a tag: `git log --oneline -- paper` lists commits."
        )
    with ZipFile(BytesIO(done.stdout)) as archive:  # extracts nothing outside the folder
        archive.extractall(folder)


def _columns(paper: Path, study: str) -> dict[str, str]:
    """How the columns of each generated table are set, by the table's name."""
    tables = (paper / "generated" / study / "tables").glob("*.tex")
    return {path.stem: read_source(path).text.partition("\n")[0] for path in tables}


def flatten(paper: Path, study: str, rebuilt: Collection[str] = ()) -> str:
    """The manuscript below ``paper`` as one TeX text, with what the study's macros print.

    ``rebuilt``: the tables to be compared as a whole.
    """
    generated = paper / "generated" / study
    if not (generated / "macros.tex").is_file():
        raise StudyError(
            f"{generated}: no macros.tex, so that there is no paper of {study} to compare. Run "
            "`make paper`."
        )
    preamble, begin, body = read_source(paper / "main.tex").text.partition(r"\begin{document}")
    while SECTION.search(body):
        body = SECTION.sub(lambda use: read_source(paper / f"{use[1]}.tex").text, body)
    body = expand(body, meanings(generated, rebuilt))
    opening = rf"\def\study{{{study}}}\newenvironment{{DIFnomarkup}}{{}}{{}}" + "\n"
    return opening + preamble + begin + body


def expand(text: str, known: Meanings) -> str:
    """``text`` with each known command replaced by what it prints, and again within that.

    What lacks an argument, or asks for a value that is not there, is left to TeX.
    """
    use = COMMAND.search(text)
    while use:
        start = use.end()
        if use[1] in known:
            count, meaning = known[use[1]]
            words, end = _arguments(text, use.end(), count)
            # TeX skips the spaces behind a command without arguments.
            end = end if count else re.compile(r"\s*").match(text, end).end()
            try:
                printed = meaning(*words)
                start = use.start()
                # No word becomes part of the command before it, such as \else.
                before = ENDS_IN_COMMAND.search(text[max(0, start - 40) : start])
                printed = f" {printed}" if before and printed[:1].isalpha() else printed
                # A command at the end of an argument takes no space from behind it.
                text = text[:start] + ENDS_IN_COMMAND.sub(r"\1{}", printed) + text[end:]
            except (KeyError, IndexError, TypeError, StudyError):
                pass
        use = COMMAND.search(text, start)
    return text


def _arguments(text: str, position: int, count: int) -> tuple[list[str], int]:
    """Up to ``count`` braced arguments from a position on, and where they end."""
    words = []
    while len(words) < count and (end := argument_end(text, position)):
        words.append(text[position : end - 1].lstrip()[1:])
        position = end
    return words, position


def meanings(generated: Path, rebuilt: Collection[str] = ()) -> Meanings:
    """What the commands of ``paper/results-macros.tex`` print with the values in a folder.

    A function raises ``KeyError`` for a value that is not set.
    """
    values = {}
    for name in ("macros", "audit"):
        for use in commands(read_source(generated / f"{name}.tex"), ("setstudy",), 2):
            # Only the sign in math: latexdiff marks numbers of the text and passes over formulas.
            values[use.arguments[0]] = SIGNED.sub(r"$\1$\2", use.arguments[1])

    def by_verdict(variant: str, higher: str, lower: str, equivalent: str, undecided: str) -> str:
        words = {"higher": higher, "lower": lower, "equivalent": equivalent}
        return words.get(values[f"outcome/{variant}"], undecided)

    def table(name: str) -> str:
        text = TABLE % read_source(generated / "tables" / f"{name}.tex").text
        return WHOLE % text if name in rebuilt else text

    known: Meanings = {
        command: (key.count("{}"), lambda *names, key=key: values[key.format(*names)])
        for command, key in KEYS.items()
    }
    return known | {
        "ifgiven": (3, lambda key, yes, no: yes if key in values else no),
        "ifgivenis": (4, lambda key, text, yes, no: yes if values.get(key) == text else no),
        "ifcompared": (3, lambda name, yes, no: yes if f"difference/{name}" in values else no),
        "ifverdict": (5, by_verdict),
        "generatedtable": (1, table),
    }
