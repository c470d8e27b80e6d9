"""The types of config values, and what two sections must agree on."""

import difflib
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
UserPath = Annotated[str, AfterValidator(lambda path: str(Path(path).expanduser()))]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


TRANSFORMERS = ("deit", "vision_transformer", "vision_transformer_hybrid")
"""timm's files that define vision transformers as a stem needs them."""


def known_stem(name: str) -> str:
    """The name, if timm has such an architecture or is not installed where the config is read.

    Reads timm's sources: importing timm takes seconds, and every command reads the config.

    Raises
    ------
    ValueError : timm defines no vision transformer of this name; tells similar ones.
    """
    timm = find_spec("timm")
    if timm is None or timm.origin is None:
        return name
    models = Path(timm.origin).parent / "models"
    architecture, _, weights = name.partition(".")
    # Where timm defines what a stem can be, and the old names of some.
    sources = [path for path in models.glob("*.py") if path.stem in TRANSFORMERS]
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(sources))
    old = "".join(re.findall(r"^register_model_deprecations\(.*?^\}\)", text, re.M | re.S))
    named = re.escape(architecture)
    published = name.replace("_clip_quickgelu_", "_clip_")  # timm derives these from those
    is_model = re.search(rf"^@register_model\ndef {named}\(", text, re.M)
    if (is_model and (not weights or f"'{published}':" in text)) or f"'{name}':" in old:
        return name
    known = re.findall(r"^@register_model\ndef (\w+)\(", text, re.M)
    near = difflib.get_close_matches(name, known, n=3) or known[:3]
    raise ValueError(f"timm has no vision transformer {name!r}; try one of {', '.join(near)}")


KnownStem = Annotated[str, AfterValidator(known_stem)]


class Section(BaseModel):
    """Frozen, and strict about unknown keys.

    Numbers and truth values may come as text: YAML 1.1 reads 5e-5 so, and the command line all.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @field_validator("*", mode="wrap")
    @classmethod
    def _true_is_not_one(cls, value: Any, read: Callable[[Any], Any]) -> Any:
        """Refuse a truth value for a number, which pydantic would take for 0 or 1."""
        result = read(value)
        pairs = zip(value, result, strict=True) if isinstance(value, list) else [(value, result)]
        if any(isinstance(a, bool) and not isinstance(b, bool) for a, b in pairs):
            raise ValueError(f"Input should be a number, not true or false (found {value})")
        return result


class StemChoice(Protocol):
    """The keys of the section model that decide how the image is cut into patches."""

    head: str
    stem: str
    stem_options: dict[str, bool | int | float | str]
    token_grid: int


def require_fit(image_size: int, model: StemChoice) -> None:
    """Raise ``ValueError`` when patches do not fill the image or the token grid outgrows the map.

    Says nothing when neither the stem's name nor its options tell the patch: the stem itself will.
    """
    named = re.search(r"patch(\d+)", model.stem)
    patch = model.stem_options.get("patch_size", int(named[1]) if named else None)
    if not isinstance(patch, int) or patch < 1:
        return
    if image_size % patch:
        near = max(1, round(image_size / patch)) * patch
        raise ValueError(
            f"data.image_size: {image_size} is no multiple of the stem's patch of {patch} px; "
            f"{near} is"
        )
    cells = image_size // patch
    if model.head == "hybrid" and model.token_grid > cells:
        raise ValueError(
            f"model.token_grid: {model.token_grid} is more than the {cells} × {cells} patches of "
            f"the stem ({image_size} px, {patch} px each); a finer grid costs memory and adds "
            "nothing"
        )
