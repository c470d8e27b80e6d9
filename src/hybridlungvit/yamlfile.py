"""Reading hand-written YAML as a typed object, and saying plainly which entry is wrong."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from hybridlungvit.configfile import read_yaml
from hybridlungvit.errors import StudyError

Model = TypeVar("Model", bound=BaseModel)


def read_model(path: Path, model: type[Model]) -> Model:
    """The content of a YAML file as ``model``; raises ``StudyError`` naming file, key and value."""
    values = read_yaml(path)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"])
            message = item["msg"].removeprefix("Value error, ")
            known = item["type"] in ("missing", "value_error")
            shown = "" if known else f" (found {item['input']!r})"
            lines.append(f"{path}: {key}: {message}{shown}")
        raise StudyError("\n".join(lines)) from error
