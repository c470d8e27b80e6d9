"""What is generated for a paper, and the marks by which a function enters that list.

A function marked ``@table``, ``@figure`` or ``@gallery`` makes the file of its name; the first
paragraph of its docstring says what it shows. The lists of names are read from the
syntax trees of this package: the workflow needs them without importing pandas or matplotlib.
"""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

Maker = Callable[..., Any]
MAKERS: dict[str, dict[str, Maker]] = {"table": {}, "figure": {}, "gallery": {}}
"""The marked functions of the modules imported so far, by kind and name."""


def _mark(kind: str, function: Maker) -> Maker:
    if MAKERS[kind].setdefault(function.__name__, function) is not function:
        raise ValueError(f"{function.__module__}: there is a {kind} {function.__name__!r} already")
    return function


def table(function: Maker) -> Maker:
    """Mark a function of the results that returns a data frame, its column format and footer."""
    return _mark("table", function)


def figure(function: Maker) -> Maker:
    """Mark a function of the results that returns a figure without images."""
    return _mark("figure", function)


def gallery(function: Maker) -> Maker:
    """Mark a function of study and layout that returns a figure with images."""
    return _mark("gallery", function)


def _captions() -> dict[str, dict[str, str]]:
    """The caption of every marked function, by kind and name."""
    captions: dict[str, dict[str, str]] = {kind: {} for kind in MAKERS}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if re.search(rf"^@({'|'.join(MAKERS)})$", text, re.MULTILINE):
            for node in ast.parse(text).body:
                for mark in getattr(node, "decorator_list", ()):
                    kind = getattr(mark, "id", None)
                    if isinstance(node, ast.FunctionDef) and kind in captions:
                        paragraph = (ast.get_docstring(node) or "").partition("\n\n")[0]
                        captions[kind][node.name] = " ".join(paragraph.split())
    return captions


TABLES, FIGURES, GALLERIES = _captions().values()
"""Name and caption of each. Galleries show images, which are not among the published files."""
CHECKLISTS = ("claim2024", "tripod_ai")
COMPANIONS = (*(f"{name}.md" for name in CHECKLISTS), "model_card.md", "datasheet.md")
