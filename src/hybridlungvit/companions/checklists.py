"""Reporting checklists whose answers point into the manuscript and the repository."""

from typing import Annotated, Any, Self

from jinja2 import Environment, TemplateSyntaxError, nodes
from pydantic import Field, model_validator

from hybridlungvit.config import Section, read_model
from hybridlungvit.io import StudyError
from hybridlungvit.paper.lint import LABEL, NUMBER
from hybridlungvit.paper.manuscript import bibliography_keys, manuscript_paths, read_source
from hybridlungvit.paths import Layout

Text = Annotated[str, Field(min_length=1)]
OWN_IMAGES = "The images are of the study's own; who ran it has to answer."
LETTERS = {
    "3": "abc", "5": "ab", "6": "abc", "8": "abc", "9": "abc", "12": "abcdefg", "18": "abcdef",
    "20": "abc", "23": "ab", "27": "abc",
}  # fmt: skip
ITEMS = {
    "claim2024": [str(number) for number in range(1, 45)],
    "tripod_ai": [
        f"{number}{letter}" for number in range(1, 28) for letter in LETTERS.get(str(number), [""])
    ],
}
"""The items of each checklist: CLAIM 2024 (Tejani et al.) and TRIPOD+AI (Collins et al. 2024)."""


class Item(Section):
    """One item: what it asks for in our own words, and the answer or why it does not apply."""

    topic: Text
    answer: Text | None = None
    phantom: Text | None = None
    """The answer of a study on synthetic images, where it is another."""
    where: list[Text] = []
    """Labels of the manuscript (sec:data, tab:main) and files, in which {study} is its name."""
    not_applicable: Text | None = None

    @model_validator(mode="after")
    def _answered(self) -> Self:
        if (self.answer is None) == (self.not_applicable is None):
            raise ValueError(
                "unanswered: give `answer` with `where`, or `not_applicable` with the reason"
            )
        if self.answer is not None and not self.where:
            raise ValueError("its answer points nowhere: name a label or a file in `where`")
        return self


class Checklist(Section):
    title: Text
    cite: Text
    """Its key in ``references.bib``."""
    items: dict[str, Item]


def read_checklist(name: str, layout: Layout) -> Checklist:
    """The checked answers in ``paper/checklists/<name>.yaml``.

    Raises ``StudyError`` naming the item that is unanswered or unknown, or that points to a label
    the manuscript does not set or to a file the repository does not hold.
    """
    path = layout.paper / "checklists" / f"{name}.yaml"
    checklist = read_model(path, Checklist)
    if checklist.cite not in bibliography_keys(layout.paper):
        raise StudyError(f"{path}: cite {checklist.cite!r} is no entry of references.bib.")
    for number in ITEMS[name]:
        if number not in checklist.items:
            raise StudyError(f"{path}: items.{number}: unanswered: the item is missing.")
    sources = (read_source(path) for path in manuscript_paths(layout.paper))
    labels = {label for source in sources for label in LABEL.findall(source.text)}
    for number, item in checklist.items.items():
        where = f"{path}: items.{number}"
        if number not in ITEMS[name]:
            raise StudyError(f"{where}: the checklist has no such item.")
        for place in item.where:
            file = layout.paper.parent / located(place, layout)
            if is_label(place) and place not in labels:
                raise StudyError(f"{where}: no label {place!r} in the sources of the manuscript.")
            if not is_label(place) and not file.exists():
                raise StudyError(f"{where}: no file {located(place, layout)!r} in the repository.")
        for text in (item.topic, item.answer, item.phantom, item.not_applicable):
            require_no_typed_numbers(text or "", where)
    return checklist


def is_label(place: str) -> bool:
    """Whether ``place`` is a label of the manuscript rather than a file."""
    return place.startswith(("sec:", "tab:", "fig:", "eq:"))


def located(place: str, layout: Layout) -> str:
    """A place with the study's name filled in."""
    return place.replace("{study}", layout.study)


def checklist_rows(
    checklist: Checklist, layout: Layout, synthetic: bool, own: bool = False
) -> list[dict[str, Any]]:
    """What the template prints, one row for each item.

    Where an answer depends on the images, those of phantoms have one and a user's ``own`` none.
    """
    return [
        {
            "number": number,
            "topic": item.topic,
            "answer": (synthetic and item.phantom)
            or (own and item.phantom and OWN_IMAGES)
            or item.answer
            or f"Not applicable: {item.not_applicable}",
            "places": [p if is_label(p) else f"`{located(p, layout)}`" for p in item.where],
        }
        for number, item in checklist.items.items()
    ]


def typed_numbers(template: str) -> list[str]:
    """The numbers in the words of a Jinja template and in the constants of its expressions."""
    tree = Environment(autoescape=False).parse(template)
    texts = [words.data for words in tree.find_all(nodes.TemplateData)]
    constants = [constant.value for constant in tree.find_all(nodes.Const)]
    texts += [str(value) for value in constants if not isinstance(value, bool)]
    return [number for text in texts for number in NUMBER.findall(text)]


def require_no_typed_numbers(template: str, where: str) -> None:
    """Raise ``StudyError`` naming ``where`` and the first number typed there."""
    try:
        numbers = typed_numbers(template)
    except TemplateSyntaxError as error:
        raise StudyError(f"{where}: line {error.lineno}: {error.message}.") from error
    if numbers:
        raise StudyError(f"{where}: the number {numbers[0]!r} is typed. Take it from a record.")
