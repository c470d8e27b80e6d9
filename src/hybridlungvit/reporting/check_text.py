"""Checks of the manuscript itself, before any result is looked at."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hybridlungvit.paths import Layout
from hybridlungvit.reporting.check_claims import check_claims
from hybridlungvit.reporting.check_numbers import typed_numbers
from hybridlungvit.reporting.check_references import check_references
from hybridlungvit.reporting.manuscript import Source, manuscript_paths, read_source
from hybridlungvit.reporting.problems import Problem


def check_text(layout: Layout) -> Iterator[Problem]:
    """Everything that the TeX files alone can be asked; raises ``StudyError`` if unreadable."""
    sources = [read_source(path) for path in manuscript_paths(layout.paper)]
    prose = [_body(source) for source in sources if _is_prose(source.path)]
    yield from typed_numbers(layout.paper, prose)
    yield from check_claims(layout, prose)
    yield from check_references(layout, sources, prose)


def _is_prose(path: Path) -> bool:
    return path.parent.name == "sections" or path.name == "main.tex"


def _body(source: Source) -> Source:
    """A main file without its preamble, lines kept; any other file as it is."""
    preamble, found, body = source.text.partition("\\begin{document}")
    if not found:
        return source
    return replace(source, text=re.sub(r"[^\n]", " ", preamble + found) + body)
