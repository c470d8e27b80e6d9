"""The check for typed numbers: every number of the text is generated or has a stated reason."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from hybridlungvit.io import StudyError
from hybridlungvit.paper.manuscript import (
    OF_DIFFERENCE,
    OF_NAME,
    OF_REFERENCE,
    OF_VARIANT,
    Problem,
    Source,
    bibliography_keys,
    cited_keys,
    commands,
    paragraph,
)

# Commands with what their first arguments are: names, places or lengths, not words of the text.
NAMES = {1: ("label", "ref", "eqref", "pageref", "citep", "citet", "citealt", "citealp",
             "citeyearpar", "cite", "input", "generatedtable", "generatedfigure", "doi", "url",
             "href", "begin", "end", "given", "ifgiven", "vspace", "hspace",
             "cmidrule", *OF_REFERENCE, *OF_DIFFERENCE, *OF_NAME),
         2: ("ifgivenis", "ifresult", "multicolumn", "setcounter", *OF_VARIANT)}  # fmt: skip
UNIT = r"(?:pt|cm|mm|ex|em|in)"
# Only where TeX expects a length: "0.97 in all seeds" is not one.
LENGTH = re.compile(
    r"-?\d*\.?\d+\s*\\(?:line|text|column)(?:width|height)\b"
    rf"|(?<=[\[{{=,])\s*-?\d*\.?\d+\s*{UNIT}(?=\s*[\]}},])"
    rf"|(?<=\\kern)-?\d*\.?\d+{UNIT}\b"
)
# Not a name's: SHA-256, COVID-19, ResNet-50, ViT-B/16.
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


def check_numbers(paper: Path, sources: list[Source]) -> Iterator[Problem]:
    """Numbers in the text that no macro prints, and reasons that have lost their number."""
    allowed, keys = read_allowed(paper), bibliography_keys(paper)
    met: set[Allowed] = set()
    for source in sources:
        prose = _prose(source)
        for entry in (entry for entry in allowed if entry.file == source.path.name):
            for found in re.finditer(re.escape(entry.text), source.text):
                met.add(entry)
                prose = _blank(prose, *found.span())
                first, last = paragraph(source, found.start())
                cited = cited_keys(source.text[first:last])
                if entry.cite is not None and not {entry.cite} <= cited & keys:
                    yield Problem(
                        source.place(found.start()),
                        f"{entry.text!r} is allowed as a number of {entry.cite}, but its paragraph "
                        "does not cite that work, or references.bib lacks it. Cite it there.",
                    )
        numbers = [*NUMBER.finditer(prose), *COUNTED.finditer(prose)]
        for found in sorted(numbers, key=lambda found: found.start()):
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
                f"{entry.text!r} does not occur in {entry.file}. Remove the entry.",
            )


def _prose(source: Source) -> str:
    """The text without names, places and lengths; positions stay as they are."""
    text = source.text
    for count, names in NAMES.items():
        for found in commands(source, names, count):
            # What stands before a citation's key is printed.
            printed = found.name.startswith("cite")
            start = source.text.index("{", found.start) if printed else found.start
            text = _blank(text, start, found.end)
    for found in LENGTH.finditer(text):
        text = _blank(text, *found.span())
    return text


def _blank(text: str, start: int, end: int) -> str:
    """A text with a part replaced by spaces, its lines kept."""
    return text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]
