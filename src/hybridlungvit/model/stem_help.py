"""What to say when timm cannot build a stem."""

import difflib
import inspect
import re

import timm
from timm.models.vision_transformer import VisionTransformer

from hybridlungvit.errors import StudyError

EXAMPLES = ["deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224"]
UNKNOWN_ARGUMENT = re.compile(r"unexpected keyword argument '(\w+)'")


def unknown_stem(name: str) -> StudyError:
    """timm has no model of this name: suggest vision transformers with similar ones."""
    known = [*timm.list_models(module="deit"), *timm.list_models(module="vision_transformer")]
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    near = near or [other for other in known if name and name.lower() in other][:3] or EXAMPLES
    return StudyError(f"model.stem: timm has no {name!r}; try one of {', '.join(near)}.")


def no_transformer(name: str) -> StudyError:
    """The model exists, but gives no patch tokens."""
    return StudyError(
        f"model.stem: {name!r} is no vision transformer with patch tokens; "
        f"try one of {', '.join(EXAMPLES)}."
    )


def failed_stem(
    name: str, image_size: int, options: dict[str, bool | int | float | str],
    pretrained: bool, error: Exception,
) -> StudyError:  # fmt: skip
    """timm knows the model and raised ``error`` when building it."""
    unknown = UNKNOWN_ARGUMENT.search(str(error))
    if unknown and unknown[1] in options:
        valid = list(inspect.signature(VisionTransformer.__init__).parameters)[1:]
        near = difflib.get_close_matches(unknown[1], valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(valid)}."
        return StudyError(f"model.stem_options.{unknown[1]}: {name!r} takes no such one; {hint}")
    if unknown:  # img_size, which every vision transformer takes
        return no_transformer(name)
    given = f" with {options}" if options else ""
    hint = ""
    if pretrained and not isinstance(error, TypeError):
        hint = " Without a network, give a weights file: --config weights=PATH."
    return StudyError(
        f"model.stem: timm could not build {name!r}{given} at {image_size} px: {error}.{hint}"
    )
