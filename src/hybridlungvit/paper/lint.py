"""The lints of the text: typed numbers, claims without proof, and references to nothing."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from hybridlungvit.config import Section, read_model
from hybridlungvit.paper.contents import FIGURES, GALLERIES, TABLES
from hybridlungvit.paper.manuscript import (
    CITED,
    KEYS,
    OF_DIFFERENCE,
    Problem,
    Source,
    bibliography_keys,
    cited_keys,
    commands,
    manuscript_paths,
    paragraph,
    read_source,
)
from hybridlungvit.paths import Layout


def lint_text(layout: Layout) -> Iterator[Problem]:
    """Everything that the TeX files alone can be asked; raises ``StudyError`` if unreadable."""
    sources = [read_source(path) for path in manuscript_paths(layout.paper)]
    prose = [
        _without_preamble(source)
        for source in sources
        if source.path.parent.name == "sections" or source.path.name == "main.tex"
    ]
    yield from lint_numbers(layout.paper, prose)
    yield from lint_claims(layout, prose)
    yield from lint_references(layout, sources, prose)


def _without_preamble(source: Source) -> Source:
    preamble, begin, body = source.text.partition("\\begin{document}")
    return replace(source, text=_blank(preamble + begin) + body) if begin else source


def _blank(text: str) -> str:
    """Spaces in the room of a text, its lines kept."""
    return re.sub(r"[^\n]", " ", text)


def _blank_span(text: str, start: int, end: int) -> str:
    return text[:start] + _blank(text[start:end]) + text[end:]


# --- typed numbers -------------------------------------------------------------------------------

# Commands with what their first arguments are: names, places or lengths, not words of the text.
NAMES = {1: ("label", "ref", "eqref", "pageref", "citep", "citet", "citealt", "citealp",
             "citeyearpar", "cite", "input", "generatedtable", "generatedfigure", "doi", "url",
             "href", "begin", "end", "vspace", "hspace", "cmidrule", *KEYS),
         2: ("ifgivenis", "multicolumn", "setcounter", "result")}  # fmt: skip
UNIT = r"(?:pt|cm|mm|ex|em|in)"
# Only where TeX expects a length: "0.97 in all seeds" is not one.
LENGTH = re.compile(
    r"-?\d*\.?\d+\s*\\(?:line|text|column)(?:width|height)\b"
    rf"|(?<=[\[{{=,])\s*-?\d*\.?\d+\s*{UNIT}(?=\s*[\]}},])"
    rf"|(?<=\\kern)-?\d*\.?\d+{UNIT}\b"
)
# Not a name's: F1, SHA-256, COVID-19, ResNet-50, ViT-B/16.
NUMBER = re.compile(
    r"(?<![A-Za-z0-9#])(?<![A-Z]-)(?<!Net-)(?<!-[A-Z]/)(?<!Ti/)\d+(?:[.,]\d+)*|[½⅓⅔¼¾]"
)
WORDS = (
    "three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|"
    "seventeen|eighteen|nineteen|dozen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|"
    "hundred|thousand"
)
GAP = r"[-~\s]+"
COUNTED = re.compile(
    rf"\b(?:(?:{WORDS})s?{GAP}(?:(?:test|validation|training|false|true){GAP})?"
    r"(?:per\s?cent|images|radiographs|patients|children|seeds|epochs|folds|trainings|errors|cases"
    rf"|mistakes|positives|negatives|(?:percentage\s)?points\b)|half{GAP}(?:of|the)"
    rf"|(?:a|one|two|three){GAP}(?:third|quarter|fifth|tenth)s?{GAP}of"
    rf"|(?:one|two){GAP}(?:per\s?cent|(?:percentage\s)?points?))\b",
    re.IGNORECASE,
)


class Allowed(Section):
    """A number that may be typed: where, in what words, and why."""

    file: str
    text: str
    kind: Literal["notation", "definition", "size", "year", "literature"]
    why: str
    cite: str | None = None
    """BibTeX key, which the paragraph must cite."""

    @model_validator(mode="after")
    def _literature_is_cited(self) -> Self:
        if self.kind in ("year", "literature") and self.cite is None:
            raise ValueError("a year or a number from the literature needs `cite`, a BibTeX key")
        if not NUMBER.search(self.text) and not COUNTED.search(self.text):
            raise ValueError("text holds no number that would need a reason")
        return self


class AllowedNumbers(Section):
    """The content of ``paper/allowed_numbers.yaml``."""

    numbers: list[Allowed]


def lint_numbers(paper: Path, sources: list[Source]) -> Iterator[Problem]:
    """Numbers in the text that no macro prints, and reasons that have lost their number."""
    reasons = paper / "allowed_numbers.yaml"
    allowed, keys = read_model(reasons, AllowedNumbers).numbers, bibliography_keys(paper)
    met: set[Allowed] = set()
    for source in sources:
        prose = _prose(source)
        for entry in (entry for entry in allowed if entry.file == source.path.name):
            for place in re.finditer(re.escape(entry.text), source.text):
                met.add(entry)
                prose = _blank_span(prose, *place.span())
                first, last = paragraph(source, place.start())
                cited = cited_keys(source.text[first:last]) & keys
                if entry.cite is not None and entry.cite not in cited:
                    yield source.problem(
                        place.start(),
                        f"{entry.text!r} is allowed as a number of {entry.cite}, but its paragraph "
                        "does not cite that work, or references.bib lacks it. Cite it there.",
                    )
        numbers = [*NUMBER.finditer(prose), *COUNTED.finditer(prose)]
        for typed in sorted(numbers, key=lambda typed: typed.start()):
            words = " ".join(source.text[max(0, typed.start() - 25) : typed.end() + 15].split())
            yield source.problem(
                typed.start(),
                f"the number {typed[0]!r} is typed by hand (… {words} …). Write \\given, "
                "\\result or \\difference, or give a reason in paper/allowed_numbers.yaml.",
            )
    for entry in (entry for entry in allowed if entry not in met):
        what = f"{entry.text!r} does not occur in {entry.file}. Remove the entry."
        yield Problem(str(reasons), what)


def _prose(source: Source) -> str:
    """The text without names, places and lengths; positions stay as they are."""
    text = source.text
    for count, names in NAMES.items():
        for use in commands(source, names, count):
            # What stands before a citation's key is printed.
            printed = use.name.startswith("cite")
            start = source.text.index("{", use.start) if printed else use.start
            text = _blank_span(text, start, use.end)
    return LENGTH.sub(lambda length: _blank(length[0]), text)


# --- claims ---------------------------------------------------------------------------------------

CLAIM = re.compile(
    r"\b(?:significan\w*(?!\s+(?:digit|level|figure))|outperform\w*|improvements?\b|improves?\b"
    r"|improved\s+(?:the|on|upon|over|by)\b|superior(?:ity|\s+(?:to|performance))|surpass\w*"
    r"|state[-\s]of[-\s]the[-\s]art|SOTA|(?<!no\s)better[~\\\s]+than|worse[~\\\s]+than"
    r"|beat(?:s|ing)?\s+(?:the|DeiT|it|all)|enhanc(?:es|ed|ement)|non-?inferior\w*"
    r"|on\s+par\s+with)\b",
    re.IGNORECASE,
)
COMPARED = re.compile(r"\\(?:difference|outcome|ifverdict)\b|\\given\{[\w.]*(?:verdict|price)\}")
NEGATED = re.compile(r"\b(?:no|not|nor|neither|cannot|whether)\b", re.IGNORECASE)
OWN = re.compile(r"\\(?:result|referenceresult|variantname)\b|HybridLungViT|\b(?:we|our)\b", re.I)
SENTENCE_END = re.compile(r"(?<!vs)(?<!cf)(?<!i\.e)(?<!e\.g)(?<!Fig)(?<!al)[.!?][)}]*\s")


def lint_claims(layout: Layout, sources: list[Source]) -> Iterator[Problem]:
    """Claims without a comparison or against its verdict, and values of another variant.

    A claim may stand in the branches of ``\\ifverdict`` for a difference, in a sentence with the
    ``\\difference`` or ``\\outcome`` of a variant that is distinguishable, or beside the citation
    of the work whose claim it is.
    """
    macros = read_source(layout.generated / "macros.tex")
    values = dict(c.arguments for c in commands(macros, ("setstudy",), 2))
    outcomes = {k.removeprefix("outcome/"): v for k, v in values.items() if "outcome/" in k}
    keys = bibliography_keys(layout.paper)
    for source in sources:
        yield from _unproven(source, outcomes, keys)
        yield from _confused(source)


def _unproven(source: Source, outcomes: dict[str, str], keys: set[str]) -> Iterator[Problem]:
    # Up to the second branch, both of which stand for a difference.
    guarded = [(use.start, use.end) for use in commands(source, ("ifverdict",), 3)]
    for claim in CLAIM.finditer(source.text):
        if any(start <= claim.start() < end for start, end in guarded):
            continue
        sentence = _sentence(source, claim.start())
        if not COMPARED.search(sentence.text):
            cited = cited_keys(sentence.text)
            if not cited or not cited <= keys or OWN.search(sentence.text):
                yield source.problem(
                    claim.start(),
                    f"{claim[0]!r} claims a difference without its comparison. Add \\difference or "
                    "\\outcome to the sentence, choose it with \\ifverdict, or cite whose claim it "
                    "is.",
                )
            continue
        variants = {c.arguments[0] for c in commands(sentence, OF_DIFFERENCE)} & set(outcomes)
        unproven = {outcomes[variant] for variant in variants} <= {"equivalent", "undecided"}
        empty = variants and unproven
        if empty and not NEGATED.search(sentence.text):
            yield source.problem(
                claim.start(),
                f"{claim[0]!r} is claimed, but {', '.join(sorted(variants))} is neither higher nor "
                "lower than the reference. Choose the words with \\ifverdict.",
            )


def _sentence(source: Source, position: int) -> Source:
    first, last = paragraph(source, position)
    ends = [first + end.end() for end in SENTENCE_END.finditer(source.text[first:last])]
    start = max(cut for cut in [first, *ends] if cut <= position)
    stop = min(cut for cut in [*ends, last] if cut > position)
    return replace(source, text=source.text[start:stop])


def _confused(source: Source) -> Iterator[Problem]:
    """Words for one variant that print values of another: a slip of copying."""
    for use in commands(source, ("ifcompared",), 2):
        variant, words = use.arguments[0], replace(source, text=use.arguments[1])
        printed = {c.arguments[1] for c in commands(words, ("result",), 2)}
        printed |= {c.arguments[0] for c in commands(words, (*OF_DIFFERENCE, "variantname"))}
        for other in sorted(printed - {variant}):
            yield source.problem(
                use.start,
                f"the words for {variant!r} print values of {other!r}. Name one variant in them.",
            )


# --- references ----------------------------------------------------------------------------------

FLOAT = re.compile(
    r"\\begin\{(figure|table|wrapfigure|sidewaystable|sidewaysfigure|longtable)\*?\}.*?"
    r"\\end\{\1\*?\}",
    re.DOTALL,
)
LABEL = re.compile(r"\\label\{([^}]*)\}")
REFERENCE = re.compile(r"\\(?:auto|page|name|eq|[cC])?ref\*?\{([^}#]*)\}|\\hyperref\[([^]#]*)\]")
DEFINITION = re.compile(r"\\(?:(?:re|provide)?newcommand|let|[gex]?def|setstudy)\b")


def lint_references(
    layout: Layout, sources: list[Source], prose: list[Source]
) -> Iterator[Problem]:
    """Floats nobody mentions, references to nothing, and content that no check has seen."""
    outside = "\n".join(FLOAT.sub("", source.text) for source in sources)
    mentioned = {label for use in REFERENCE.finditer(outside) for label in _labels(use)}
    labels = Counter(label for source in sources for label in LABEL.findall(source.text))
    keys = bibliography_keys(layout.paper)
    for source in sources:
        for use in FLOAT.finditer(source.text):
            names = LABEL.findall(use[0])
            if not names:
                yield source.problem(use.start(), f"this {use[1]} has no \\label. Add one.")
            elif not set(names) & mentioned:
                what = f"the text never mentions {use[1]} {names[0]!r}. Add \\ref{{{names[0]}}}."
                yield source.problem(use.start(), what)
        for use in REFERENCE.finditer(source.text):
            for label in _labels(use):
                if label not in labels:
                    yield source.problem(use.start(), f"no \\label{{{label}}} exists.")
        for use in CITED.finditer(source.text):
            for key in sorted(cited_keys(use[0]) - keys):
                yield source.problem(use.start(), f"references.bib has no {key!r}.")
    for label, count in labels.items():
        if count > 1:
            yield Problem(str(layout.paper), f"\\label{{{label}}} stands {count} times.")
    yield from _generated(prose)
    yield from _foreign(layout, prose)


def _labels(reference: re.Match[str]) -> list[str]:
    return [label.strip() for label in (reference[1] or reference[2]).split(",")]


def _generated(prose: list[Source]) -> Iterator[Problem]:
    """Generated figures and tables that are not shown, and shown ones that are not generated."""
    made = {"figure": {*FIGURES, *GALLERIES}, "table": {*TABLES, "mask_benchmark"}}
    for kind, names in made.items():
        shown = {c.arguments[0] for s in prose for c in commands(s, (f"generated{kind}",))}
        for name in sorted(names - shown):
            yield Problem(
                "paper/sections",
                f"the generated {kind} {name!r} is shown nowhere. Show it with "
                f"\\generated{kind}{{{name}}}, or remove its function.",
            )
        for name in sorted(shown - names):
            what = f"no {kind} {name!r} is generated. See CONTRIBUTING.md on how to add one."
            yield Problem("paper/sections", what)


def _foreign(layout: Layout, prose: list[Source]) -> Iterator[Problem]:
    """Files and definitions in the text that would go round every check."""
    known = {
        path.relative_to(layout.paper).with_suffix("").as_posix()
        for path in manuscript_paths(layout.paper)
    }
    for source in prose:
        for use in commands(source, ("input", "include", "includegraphics", "subfile")):
            name = use.arguments[0].removesuffix(".tex")
            if use.name == "includegraphics" or name not in known:
                yield source.problem(
                    use.start,
                    f"{use.arguments[0]} is neither generated nor checked. Generate it (see "
                    "CONTRIBUTING.md), or put TeX into paper/sections or paper/figures.",
                )
        for definition in DEFINITION.finditer(source.text):
            yield source.problem(
                definition.start(),
                f"{definition[0]} may change what a number prints. Define commands in main.tex.",
            )
