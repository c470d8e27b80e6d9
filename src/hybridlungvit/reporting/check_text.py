"""Checks of the manuscript itself: typed numbers, claims, floats, and macros without use."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from hybridlungvit.errors import StudyError
from hybridlungvit.paths import AUDIT_TABLES, FIGURES, GALLERIES, TABLES, Layout
from hybridlungvit.reporting.manuscript import (
    OF_DIFFERENCE,
    OF_NAME,
    OF_REFERENCE,
    OF_VARIANT,
    Asked,
    Source,
    asked,
    commands,
    group_end,
    manuscript_paths,
    read_source,
)
from hybridlungvit.reporting.problems import Problem

# Commands with what their first arguments are: names, places or lengths, not words of the text.
NAMES = {1: ("label", "ref", "eqref", "pageref", "citep", "citet", "citealt", "citealp",
             "citeyearpar", "cite", "input", "generatedtable", "generatedfigure", "doi", "url",
             "includegraphics", "begin", "end", "given", "ifgiven", "ifvariant", "vspace", "hspace",
             *OF_REFERENCE, *OF_DIFFERENCE, *OF_NAME),
         2: ("ifgivenis", "ifresult", *OF_VARIANT)}  # fmt: skip
LENGTH = re.compile(r"-?\d*\.?\d+\s*(?:pt|cm|mm|ex|em|in|\\(?:line|text|column)(?:width|height))\b")
# Not a name's: SHA-256, COVID-19.
NUMBER = re.compile(r"(?<![A-Za-z0-9#])(?<![A-Z]-)\d+(?:[.,]\d+)*")
WORDS = (
    "three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|twenty|thirty|forty|fifty|sixty|"
    "seventy|eighty|ninety|hundred|thousand"
)
COUNTED = re.compile(
    rf"\b(?:(?:{WORDS})s?[~\s]+(?:per\s?cent|images|radiographs|patients|children|seeds|epochs|folds"
    r"|trainings|(?:percentage\s)?points\b)|half[~\s]+of|(?:a|one|two|three)[~\s]+(?:third|quarter)s?"
    r"[~\s]+of|(?:one|two)[~\s]+(?:per\s?cent|(?:percentage\s)?points?))\b",
    re.IGNORECASE,
)
CLAIM = re.compile(
    r"\b(?:significan\w*|outperform\w*|improve\w*|superior\w*|surpass\w*"
    r"|state[-\s]of[-\s]the[-\s]art|(?<!no\s)better\sthan|worse\sthan|beats?)\b",
    re.IGNORECASE,
)
COMPARED = re.compile(r"\\(?:difference|verdict|ifverdict)\b|\\given\{[\w.]*(?:verdict|price)\}")
CITED = re.compile(r"\\cite\w*(?:\[[^]]*\])*\{([^}]*)\}")
FLOAT = re.compile(r"\\begin\{(figure|table)\*?\}.*?\\end\{\1\*?\}", re.DOTALL)


class Allowed(BaseModel):
    """A number that may be typed: where, in what words, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str
    text: str
    kind: Literal["notation", "definition", "size", "year", "literature"]
    why: str
    cite: str | None = None
    """BibTeX key, which the paragraph must cite."""

    @model_validator(mode="after")
    def _literature_is_cited(self) -> "Allowed":
        if self.kind in ("year", "literature") and self.cite is None:
            raise ValueError("a year or a number from the literature needs `cite`, a BibTeX key")
        if not NUMBER.search(self.text) and not COUNTED.search(self.text):
            raise ValueError("text holds no number that would need a reason")
        return self


def read_allowed(paper: Path) -> list[Allowed]:
    """The numbers that may be typed; raises ``StudyError`` naming the entry that is wrong."""
    path = paper / "allowed_numbers.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return TypeAdapter(list[Allowed]).validate_python(values or [])
    except (OSError, yaml.YAMLError) as error:
        raise StudyError(f"{path}: cannot be read ({error}).") from error
    except ValidationError as error:
        first = error.errors()[0]
        entry = ".".join(str(part) for part in first["loc"])
        raise StudyError(f"{path}: entry {entry}: {first['msg']}.") from error


def check_text(layout: Layout) -> Iterator[Problem]:
    """Everything that the TeX files alone can be asked; raises ``StudyError`` if unreadable."""
    sources = [read_source(path) for path in manuscript_paths(layout.paper)]
    sections = [source for source in sources if source.path.parent.name == "sections"]
    yield from _typed_numbers(layout.paper, sections)
    for source in sections:
        yield from _claims(source)
    yield from _floats(sources)
    yield from _unused(asked(layout.paper), layout)


def paragraph(source: Source, position: int) -> tuple[int, int]:
    """Start and end of the paragraph around a position; blank lines part paragraphs."""
    start = source.text.rfind("\n\n", 0, position)
    end = source.text.find("\n\n", position)
    return start + 2 if start >= 0 else 0, end if end >= 0 else len(source.text)


def _blank(text: str, start: int, end: int) -> str:
    """A text with a part replaced by spaces, its lines kept."""
    return text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]


def _prose(source: Source) -> str:
    """The text without names, places and lengths; positions stay as they are."""
    text = source.text
    for count, names in NAMES.items():
        for found in commands(source, names, count):
            text = _blank(text, found.start, found.end)
    for found in LENGTH.finditer(text):
        text = _blank(text, *found.span())
    return text


def _typed_numbers(paper: Path, sections: list[Source]) -> Iterator[Problem]:
    allowed = read_allowed(paper)
    bibliography = "\n".join(p.read_text(encoding="utf-8") for p in sorted(paper.glob("*.bib")))
    keys = set(re.findall(r"^@\w+\{([^,\s]+),", bibliography, re.MULTILINE))
    met: set[Allowed] = set()
    for source in sections:
        prose = _prose(source)
        here = [entry for entry in allowed if entry.file == source.path.name]
        for entry in here:
            for start in _occurrences(source.text, entry.text):
                met.add(entry)
                prose = _blank(prose, start, start + len(entry.text))
                first, last = paragraph(source, start)
                cited = {
                    key.strip()
                    for group in CITED.findall(source.text[first:last])
                    for key in group.split(",")
                }
                if entry.cite is not None and not {entry.cite} <= cited & keys:
                    yield Problem(
                        source.place(start),
                        f"{entry.text!r} is allowed as a number of {entry.cite}, but its paragraph "
                        "does not cite that work, or references.bib lacks it. Cite it there.",
                    )
        for found in sorted([*NUMBER.finditer(prose), *COUNTED.finditer(prose)], key=_start):
            words = " ".join(source.text[max(0, found.start() - 25) : found.end() + 15].split())
            yield Problem(
                source.place(found.start()),
                f"the number {found[0]!r} is typed by hand (… {words} …). Write \\given, "
                "\\result or \\difference, or give a reason in paper/allowed_numbers.yaml.",
            )
    for entry in allowed:
        if entry not in met:
            yield Problem(
                str(paper / "allowed_numbers.yaml"),
                f"{entry.text!r} does not occur in sections/{entry.file}. Remove the entry.",
            )


def _start(found: re.Match[str]) -> int:
    return found.start()


def _occurrences(text: str, part: str) -> list[int]:
    return [found.start() for found in re.finditer(re.escape(part), text)]


def _claims(source: Source) -> Iterator[Problem]:
    guarded = []
    for found in commands(source, ("ifverdict",)):
        end = found.end
        for _ in range(3):
            opening = re.compile(r"\s*\{").match(source.text, end)
            end = (opening and group_end(source.text, opening.end() - 1)) or end
        guarded.append((found.end, end))
    for found in CLAIM.finditer(source.text):
        if any(start <= found.start() < end for start, end in guarded):
            continue
        first, last = paragraph(source, found.start())
        ends = [m.end() for m in re.finditer(r"[.!?][)}]*\s", source.text[first:last])]
        cuts = [first, *(first + end for end in ends), last]
        place = max(i for i, cut in enumerate(cuts[:-1]) if cut <= found.start())
        sentence = source.text[cuts[place] : cuts[place + 1]]
        if not COMPARED.search(sentence) and not CITED.search(sentence):
            yield Problem(
                source.place(found.start()),
                f"{found[0]!r} claims a difference without its comparison. Add \\difference or "
                "\\verdict to the sentence, choose it with \\ifverdict, or cite whose claim it is.",
            )


def _floats(sources: list[Source]) -> Iterator[Problem]:
    places = [(s, found) for s in sources for found in FLOAT.finditer(s.text)]
    outside = "\n".join(FLOAT.sub("", source.text) for source in sources)
    mentioned = set(re.findall(r"\\(?:auto|page)?ref\{([^}]*)\}", outside))
    for source, found in places:
        labels = re.findall(r"\\label\{([^}]*)\}", found[0])
        if not labels:
            yield Problem(source.place(found.start()), f"this {found[1]} has no \\label. Add one.")
        elif not set(labels) & mentioned:
            yield Problem(
                source.place(found.start()),
                f"the text never mentions {found[1]} {labels[0]!r}. Add \\ref{{{labels[0]}}}.",
            )
    shown = {c.arguments[0] for s in sources for c in commands(s, ("generatedfigure",))}
    tables = {c.arguments[0] for s in sources for c in commands(s, ("generatedtable",))}
    for kind, made, used in (
        ("figure", {*FIGURES, *GALLERIES, "audit"}, shown),
        ("table", {*TABLES, *AUDIT_TABLES, "mask_benchmark"}, tables),
    ):
        for name in sorted(made - used):
            yield Problem(
                "paper/sections", f"the generated {kind} {name!r} is shown nowhere. Show it with "
                f"\\generated{kind}{{{name}}}, or leave it out of paths.py.",
            )  # fmt: skip


def _unused(wanted: Asked, layout: Layout) -> Iterator[Problem]:
    for name in ("macros.tex", "audit.tex"):
        path = layout.generated / name
        source = read_source(path)
        reference = {c.arguments for c in commands(source, ("setstudy",), 2)}
        of_reference = next((text for key, text in reference if key == "reference"), "")
        found = [(c, c.arguments[0] in wanted.given) for c in commands(source, ("setstudy",))]
        found += [(c, c.arguments[0] in wanted.differences)
                  for c in commands(source, ("setdifference",))]  # fmt: skip
        found += [(c, c.arguments[0] in wanted.names) for c in commands(source, ("setvariant",))]
        for c in commands(source, ("setresult",), 2):
            metric, variant = c.arguments
            own = variant == of_reference and (metric, "") in wanted.results
            found.append((c, own or c.arguments in wanted.results))
        for command, used in found:
            if not used:
                what = " ".join(command.arguments)
                yield Problem(
                    source.place(command.start),
                    f"the macro {what!r} is used nowhere in the text. Run `macros` and "
                    "`audit-report` again.",
                )
