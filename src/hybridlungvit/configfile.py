"""Reading a study from YAML or JSON, and saying plainly what is wrong with it."""

import difflib
import json
import re
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from hybridlungvit.config import Recipe, Study
from hybridlungvit.errors import StudyError
from hybridlungvit.files import value_sha256, write_json
from hybridlungvit.paths import Layout

FOLDER = {"source": "folder"}
Model = TypeVar("Model", bound=BaseModel)
WORKFLOW = "config"
"""What messages call the values that Snakemake put together from files and its command line."""


def load_study(path: Path) -> Study:
    """Read and validate ``path`` (YAML, or the workflow's resolved JSON).

    Raises ``StudyError`` naming the file, the key, what was expected and the nearest valid key.
    """
    return study_from(read_yaml(path), str(path))


def load_other(study: Study) -> Study | None:
    """The study that ``other_study`` names, if any; raises ``StudyError`` naming the key."""
    if study.other_study is None:
        return None
    try:
        return load_study(Path(study.other_study))
    except StudyError as error:
        raise StudyError(f"other_study: {error}") from error


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML takes the last, and 010 and 1:30, its 8 and 90."""

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind in ("int", "float") and re.search(r"^[-+]?0[\d_]+$|:", node.value):
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"{node.value} in line {line} is octal or to base 60, no decimal")
        return super().construct_scalar(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = [key for place, key in enumerate(keys) if key in keys[:place]]
        if twice:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"{twice[0]!r} is given twice in the mapping from line {line} on")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file; raises ``StudyError``, also for a key given twice."""
    try:
        text = path.read_text(encoding="utf-8")
        # JSON is not quite YAML 1.1, which takes 5e-05 for text.
        values = json.loads(text) if path.suffix == ".json" else yaml.load(text, _Loader)
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise StudyError(f"{path}: not valid YAML or JSON: {error}") from error
    if not isinstance(values, dict):
        raise StudyError(f"{path}: expected a mapping of keys, as in config/demo.yaml.")
    return values


def study_from(values: dict[str, Any], source: str) -> Study:
    """Validate plain values; ``source`` names their origin in messages."""
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        raise StudyError(_explain(error, Study, source)) from error
    for variant in study.variants:
        try:
            study.recipe(variant)
        except ValidationError as error:
            raise StudyError(_explain(error, Recipe, f"{source}: variants.{variant}")) from error
    if study.data_root is not None and study.data.source == "mendeley":
        # The user's own copy of the same images.
        study = study.model_copy(update={"data": study.data.model_copy(update=FOLDER)})
    if study.data.source != "phantom" and study.data.phantom != type(study.data.phantom)():
        raise StudyError(
            f"{source}: data.phantom is set, but data.source is {study.data.source!r}."
        )
    if study.data.source == "phantom" and study.data_root is not None:
        raise StudyError(
            f"{source}: data_root is set, but data.source is 'phantom', which reads no images. "
            "Take a study of real ones, such as config/kermany-cpu.yaml."
        )
    if study.data.source == "phantom" and study.data.annotations is not None:
        raise StudyError(f"{source}: data.annotations is set, but phantoms bring their own.")
    return study


def save_resolved(study: Study, layout: Layout) -> Path:
    """Write the study with every default filled in, once, under a name that follows its values."""
    require_folder(layout)
    values = study.model_dump(mode="json")
    path = layout.root / "config" / f"{value_sha256(values)[:16]}.json"
    if not path.exists():
        write_json(path, values)
    return path


def require_folder(layout: Layout) -> None:
    """Raise ``StudyError`` when the study's results folder is something else."""
    if layout.root.exists() and not layout.root.is_dir():
        raise StudyError(
            f"{layout.root}: is a file, but the study's results would go into a folder of that "
            "name. Name the study otherwise (config key study) or move the file."
        )


def _explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            wrong = str(item["loc"][-1])
            valid = _fields_at(model, item["loc"][:-1])
            near = difflib.get_close_matches(wrong, valid, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}."
            lines.append(f"{source}: {key}: unknown key; {hint}")
        elif item["type"] == "missing":
            lines.append(f"{source}: {key}: missing; add it as in config/demo.yaml.")
        else:
            message = item["msg"].removeprefix("Value error, ")
            given = "" if item["type"] == "value_error" else f" (found {item['input']!r})"
            lines.append(f"{source}: {key + ': ' if key else ''}{message}{given}")
    return "\n".join(lines)


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The field names of the section that ``location`` leads to."""
    for part in location:
        if part not in model.model_fields:
            continue  # a name the user chose, such as a variant's
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(model.model_fields)


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
