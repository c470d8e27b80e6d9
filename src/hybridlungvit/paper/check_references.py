"""The check of what the text points to: floats, labels, citations and files."""

import re
from collections import Counter
from collections.abc import Iterator

from hybridlungvit.paths import Layout
from hybridlungvit.paper.contents import FIGURES, GALLERIES, TABLES
from hybridlungvit.paper.manuscript import (
    CITED,
    Problem,
    Source,
    bibliography_keys,
    cited_keys,
    commands,
    manuscript_paths,
)

FLOAT = re.compile(
    r"\\begin\{(figure|table|wrapfigure|sidewaystable|sidewaysfigure|longtable)\*?\}.*?"
    r"\\end\{\1\*?\}",
    re.DOTALL,
)
REFERENCE = re.compile(r"\\(?:auto|page|name|eq|[cC])?ref\*?\{([^}#]*)\}|\\hyperref\[([^]#]*)\]")
DEFINITION = re.compile(
    r"\\(?:(?:re|provide)?newcommand|renewcommand|let|g?def|edef|xdef"
    r"|set(?:study|result|difference|variant))\b"
)


def check_references(
    layout: Layout, sources: list[Source], prose: list[Source]
) -> Iterator[Problem]:
    """Floats nobody mentions, references to nothing, and content that no check has seen."""
    outside = "\n".join(FLOAT.sub("", source.text) for source in sources)
    mentioned = set(_referenced(outside))
    labels = Counter(
        label for source in sources for label in re.findall(r"\\label\{([^}]*)\}", source.text)
    )
    keys = bibliography_keys(layout.paper)
    for source in sources:
        yield from _floats(source, mentioned)
        for found in REFERENCE.finditer(source.text):
            for label in _split(found[1] or found[2]):
                if label not in labels:
                    yield Problem(source.place(found.start()), f"no \\label{{{label}}} exists.")
        for found in CITED.finditer(source.text):
            for key in sorted(cited_keys(found[0]) - keys):
                yield Problem(source.place(found.start()), f"references.bib has no {key!r}.")
    for label, count in labels.items():
        if count > 1:
            yield Problem(str(layout.paper), f"\\label{{{label}}} stands {count} times.")
    yield from _generated(prose)
    yield from _foreign(layout, prose)


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]


def _referenced(text: str) -> Iterator[str]:
    for found in REFERENCE.finditer(text):
        yield from _split(found[1] or found[2])


def _floats(source: Source, mentioned: set[str]) -> Iterator[Problem]:
    for found in FLOAT.finditer(source.text):
        labels = re.findall(r"\\label\{([^}]*)\}", found[0])
        if not labels:
            yield Problem(source.place(found.start()), f"this {found[1]} has no \\label. Add one.")
        elif not set(labels) & mentioned:
            yield Problem(
                source.place(found.start()),
                f"the text never mentions {found[1]} {labels[0]!r}. Add \\ref{{{labels[0]}}}.",
            )


def _generated(prose: list[Source]) -> Iterator[Problem]:
    """Generated figures and tables that are not shown, and shown ones that are not generated."""
    made = {
        "figure": {*FIGURES, *GALLERIES},
        "table": {*TABLES, "mask_benchmark"},
    }
    for kind, names in made.items():
        shown = {c.arguments[0] for s in prose for c in commands(s, (f"generated{kind}",))}
        for name in sorted(names - shown):
            yield Problem(
                "paper/sections", f"the generated {kind} {name!r} is shown nowhere. Show it with "
                f"\\generated{kind}{{{name}}}, or leave it out of paper/contents.py.",
            )  # fmt: skip
        for name in sorted(shown - names):
            yield Problem(
                "paper/sections", f"no {kind} {name!r} is generated. See paper/contents.py."
            )


def _foreign(layout: Layout, prose: list[Source]) -> Iterator[Problem]:
    """Files and definitions in the text that would go round every check."""
    known = {
        path.relative_to(layout.paper).with_suffix("").as_posix()
        for path in manuscript_paths(layout.paper)
    }
    for source in prose:
        for c in commands(source, ("input", "include", "includegraphics", "subfile")):
            name = c.arguments[0].removesuffix(".tex")
            if c.name == "includegraphics" or name not in known:
                yield Problem(
                    source.place(c.start),
                    f"{c.arguments[0]} is neither generated nor checked. Generate it (see "
                    "CONTRIBUTING.md), or put TeX into paper/sections or paper/figures.",
                )
        for found in DEFINITION.finditer(source.text):
            yield Problem(
                source.place(found.start()),
                f"{found[0]} may change what a number prints. Define commands in main.tex.",
            )
