"""Reading the manuscript's TeX: commands with their arguments, and the macros it uses."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hybridlungvit.io import StudyError


@dataclass(frozen=True)
class Problem:
    """What a check of the paper objects to."""

    where: str
    """File, and line or key, to look at."""
    what: str
    """What is wrong and how to mend it."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


# A percent sign starts a comment unless a backslash of its own stands before it.
COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%.*")
CITED = re.compile(r"\\cite\w*\*?(?:\[[^]]*\])*\{([^}]*)\}")
KEYS = {
    "given": "{}", "ifgiven": "{}", "ifgivenis": "{}", "result": "result/{}/{}",
    "referenceresult": "result/{}", "referenceestimate": "estimate/{}", "referencesd": "sd/{}",
    "difference": "difference/{}", "ifcompared": "difference/{}", "outcome": "outcome/{}",
    "ifverdict": "outcome/{}", "variantname": "name/{}", "seedcount": "seedcount",
    "positiveclass": "positiveclass", "negativeclass": "negativeclass",
}  # fmt: skip
"""The key that each command of ``paper/results-macros.tex`` reads, from its first arguments."""
OF_DIFFERENCE = ("difference", "outcome", "ifverdict", "ifcompared")


@dataclass(frozen=True)
class Source:
    """A TeX file without its comments; lines stay where they are."""

    path: Path
    text: str

    def problem(self, position: int, what: str) -> Problem:
        """A problem with its file and line, from 1, at a position in the text."""
        line = self.text.count("\n", 0, position) + 1
        return Problem(f"{self.path}:{line}", what)


@dataclass(frozen=True)
class Command:
    """An occurrence of a command."""

    name: str
    arguments: tuple[str, ...]
    start: int
    end: int
    """Just behind the last argument."""


def read_source(path: Path) -> Source:
    """Read a TeX file; raises ``StudyError`` when it cannot be read as UTF-8."""
    lines = _read(path).splitlines()
    return Source(path, "\n".join(COMMENT.sub(r"\1", line) for line in lines))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read ({error}). Save it as UTF-8 text.") from error


def manuscript_paths(paper: Path) -> list[Path]:
    """The hand-written TeX files, in the order of their names."""
    return sorted(
        [*paper.glob("*.tex"), *paper.glob("sections/*.tex"), *paper.glob("figures/*.tex")]
    )


def argument_end(text: str, position: int) -> int | None:
    """The position behind the braced argument that follows, or None where none does or ends."""
    depth = 0
    opening = re.compile(r"\s*\{").match(text, position)
    signs = re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, opening.end() - 1) if opening else ()
    for sign in signs:
        depth += {"{": 1, "}": -1}.get(sign[0], 0)
        if depth == 0:
            return sign.end()
    return None


def commands(source: Source, names: tuple[str, ...], count: int = 1) -> Iterator[Command]:
    """Every use of the named commands with ``count`` braced arguments behind optional ones.

    A use with fewer arguments, such as in a definition, is passed over.
    """
    pattern = re.compile(rf"\\({'|'.join(names)})(?![A-Za-z@])\*?((?:\s*\[[^][]*\])*)")
    for use in pattern.finditer(source.text):
        arguments, end = [], use.end()
        while len(arguments) < count and (closing := argument_end(source.text, end)):
            arguments.append(source.text[end : closing - 1].lstrip()[1:])
            end = closing
        if len(arguments) == count:
            yield Command(use[1], tuple(arguments), use.start(), end)


def used_keys(paper: Path) -> set[str]:
    """The keys that the manuscript in a folder reads, in whatever branch of a condition."""
    sources = [read_source(path) for path in manuscript_paths(paper)]
    return {
        template.format(*use.arguments)
        for source in sources
        for name, template in KEYS.items()
        for use in commands(source, (name,), template.count("{}"))
    }


def paragraph(source: Source, position: int) -> tuple[int, int]:
    """Start and end of the paragraph around a position; blank lines part paragraphs."""
    start = source.text.rfind("\n\n", 0, position)
    end = source.text.find("\n\n", position)
    return start + 2 if start >= 0 else 0, end if end >= 0 else len(source.text)


def cited_keys(text: str) -> set[str]:
    """The BibTeX keys that a text cites."""
    return {key.strip() for group in CITED.findall(text) for key in group.split(",")}


def bibliography_keys(paper: Path) -> set[str]:
    """The keys of all entries in the folder's ``references.bib``."""
    text = _read(paper / "references.bib")
    return set(re.findall(r"^@\w+\{([^,\s]+),", text, re.MULTILINE))
