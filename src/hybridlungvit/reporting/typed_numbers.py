"""No number is typed into generated text: it comes from a record or does not come at all."""

import re

from jinja2 import Environment, TemplateSyntaxError, nodes

from hybridlungvit.errors import StudyError

# A digit that follows a letter belongs to a name, as in F1.
NUMBER = re.compile(r"(?<![A-Za-z\d])\d+(?:[.,]\d+)*")


def typed_numbers(template: str) -> list[str]:
    """The numbers in the words of a Jinja template and in the constants of its expressions."""
    tree = Environment(autoescape=False).parse(template)
    found = [text.data for text in tree.find_all(nodes.TemplateData)]
    constants = [constant.value for constant in tree.find_all(nodes.Const)]
    found += [str(value) for value in constants if not isinstance(value, bool)]
    return [number for text in found for number in NUMBER.findall(text)]


def require_no_typed_numbers(template: str, where: str) -> None:
    """Raise ``StudyError`` naming ``where`` and the first number typed there."""
    try:
        numbers = typed_numbers(template)
    except TemplateSyntaxError as error:
        raise StudyError(f"{where}: line {error.lineno}: {error.message}.") from error
    if numbers:
        raise StudyError(f"{where}: the number {numbers[0]!r} is typed. Take it from a record.")
