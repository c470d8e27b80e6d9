"""What is generated for a paper, and the marks by which a function enters that list.

A function marked ``@table`` or ``@figure`` takes the results and returns a data frame with its
column format and footer, or a figure; one marked ``@gallery`` takes study and layout and returns a
figure with images, which is not among the published files. It makes the file of its name, and the
first paragraph of its docstring says what it shows. The names are read from the sources of this
package: the workflow needs them without importing pandas or matplotlib.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

Maker = Callable[..., Any]
MAKERS: dict[str, dict[str, Maker]] = {"table": {}, "figure": {}, "gallery": {}}
"""The marked functions of the modules imported so far, by kind and name."""


def _mark(kind: str) -> Callable[[Maker], Maker]:
    def mark(function: Maker) -> Maker:
        MAKERS[kind][function.__name__] = function
        return function

    return mark


table, figure, gallery = map(_mark, MAKERS)
_PATHS = sorted(Path(__file__).parent.glob("*.py"))
_SOURCES = "".join(path.read_text(encoding="utf-8") for path in _PATHS)
TABLES, FIGURES, GALLERIES = (
    re.findall(rf"^@{kind}\ndef (\w+)", _SOURCES, re.MULTILINE) for kind in MAKERS
)
CHECKLISTS = ("claim2024", "tripod_ai")
COMPANIONS = (*(f"{name}.md" for name in CHECKLISTS), "model_card.md", "datasheet.md")
