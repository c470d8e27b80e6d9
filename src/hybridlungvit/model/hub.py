"""Models in the layout of the model hub, and models built around the weights of a file."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from huggingface_hub import PyTorchModelHubMixin, snapshot_download
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn
from torch.overrides import TorchFunctionMode

from hybridlungvit.config import Model
from hybridlungvit.io import StudyError

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LAYERS = ("depth", "encoder_layers", "fusion_layers")
MOST_LAYERS, LARGEST = 200, 10_000
"""Bounds on what a file may ask to be built; published models stay far below."""


class HubModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="hybridlungvit",
    license="mit",
    pipeline_tag="image-classification",
    tags=["medical-imaging", "chest-x-ray"],
):
    """A model that is saved to and loaded from a folder or a repository of the model hub.

    ``config.json`` holds the arguments of the constructor, ``model.safetensors`` the weights and
    ``README.md`` the model card.
    """

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> Self:
        """The model in a folder or of a name on the hub, float32, in evaluation mode, on the CPU.

        ``options`` (revision, token, cache_dir, local_files_only, …) are those of huggingface_hub's
        ``snapshot_download``. The stem's own pretrained weights are not fetched. Raises
        ``StudyError`` for what is not there, damaged, or not of this class.
        """
        folder = fetch(name, **options)
        config = read_config(folder)
        arguments = {key: config[key] for key in cls._hub_mixin_init_parameters if key in config}
        arguments["pretrained"] = False
        try:
            known = {key: value for key, value in arguments.items() if key in Model.model_fields}
            known["stem_options"] = known.get("stem_options") or {}
            Model.model_validate(known)
        except ValidationError as error:
            raise not_fitting(folder / CONFIG, error) from error
        model = load_model(lambda: cls(**arguments), arguments, folder / WEIGHTS)
        model._hub_mixin_config = config  # saved again, with what else it tells
        return model

    def save_pretrained(
        self, folder: str | Path, *, config: dict[str, Any] | None = None, **options: Any
    ) -> str | None:
        """As huggingface_hub's, but where the stem's first weights came from is not told."""
        config = (config or self._hub_mixin_config) | {"pretrained": False}
        return super().save_pretrained(folder, config=config, **options)


def fetch(name: str | Path, **options: Any) -> Path:
    """The folder of this name, or that of a repository on the hub, downloaded if need be."""
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(str(name), allow_patterns=[CONFIG, WEIGHTS], **options))
    except Exception as error:  # names, networks, rights, disks: they share no base class
        raise StudyError(
            f"{name}: no such folder, and the model hub gives none ({_first_line(error)})."
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json; raises ``StudyError`` when it is no JSON object."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path}: cannot be read as JSON ({_first_line(error)}).") from error
    if not isinstance(config, dict):
        raise StudyError(f"{path}: holds no JSON object with the arguments of a model.")
    return config


Built = TypeVar("Built", bound=nn.Module)


def load_model(build: Callable[[], Built], arguments: Mapping[str, Any], weights: Path) -> Built:
    """The model that ``build`` makes, with the weights of a file, float32, in evaluation mode.

    Raises ``StudyError`` for a damaged file, for weights of another model, and for ``arguments`` so
    large that building would not end.
    """
    try:
        tensors = load_file(weights)
    except Exception as error:  # of the system, of safetensors, of its header's types
        raise StudyError(
            f"{weights}: cannot be read as a checkpoint ({_first_line(error)})."
        ) from error
    for key, value in (dict(arguments) | (arguments.get("stem_options") or {})).items():
        most = MOST_LAYERS if key in LAYERS else LARGEST
        if isinstance(value, int | float) and not abs(value) <= most:
            raise not_fitting(weights, ValueError(f"{key} {value} is more than {most}"))
    try:
        with Uninitialised():
            model = build()
        floats = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
        model.load_state_dict(floats, assign=True)
    except Exception as error:  # timm raises whatever it likes
        raise not_fitting(weights, error) from error
    return model.eval()


def not_fitting(path: Path, error: Exception) -> StudyError:
    """The file is whole, and says something that this version of the software cannot follow."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    else:
        reason = _first_line(error)
    return StudyError(
        f"{path}: does not fit this version of the software ({reason}). Train again, or use the "
        "version it was trained with."
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] or type(error).__name__


class Uninitialised(TorchFunctionMode):
    """Leaves parameters unset: drawing those that a checkpoint is to replace takes seconds."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        target, name = args[0] if args else kwargs.get("tensor"), function.__name__
        in_place = name.endswith("_") and not name.startswith("__")
        drawn = in_place and isinstance(target, nn.Parameter)
        return target if drawn else function(*args, **kwargs)
