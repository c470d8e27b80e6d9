"""The stem: a timm vision transformer by name, its patch tokens laid out as a feature map."""

import difflib
import inspect
import pickle
import re
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from hybridlungvit.config import known_stem
from hybridlungvit.io import StudyError

HEADS = ("head.", "head_dist.", "fc_norm.")
UNKNOWN_ARGUMENT = re.compile(r"unexpected keyword argument '(\w+)'")


class Features(NamedTuple):
    """What a stem makes of images; a head reads nothing else of them."""

    pooled: Tensor
    """(B, C): the vector that timm's own classifier reads."""
    patches: Tensor
    """(B, h·w, C): the patch tokens, row by row."""

    def map(self, grid: tuple[int, int]) -> Tensor:
        """The patch tokens as a feature map: (B, h·w, C) → (B, C, h, w)."""
        return self.patches.transpose(1, 2).unflatten(2, grid)


class Stem(nn.Module):
    """Vision transformer without its classification head.

    Parameters
    ----------
    name : any timm vision transformer (ViT, DeiT, distilled DeiT, DINO, …).
    image_size : side S of the square input in pixels, a multiple of the patch; position embeddings
        of pretrained weights are resampled to it.
    pretrained : True for timm's published weights, False for random ones, or a safetensors/.pth
        file in timm's key names.
    options : further arguments of timm's constructor.

    Raises ``StudyError`` for an unknown name, a model that is no ViT, a size that does not fit or
    weights that do not belong to the model.
    """

    def __init__(
        self,
        name: str,
        image_size: int,
        pretrained: bool | str | Path = False,
        options: dict[str, bool | int | float | str] | None = None,
    ) -> None:
        super().__init__()
        try:
            known_stem(name)
        except ValueError as error:
            raise StudyError(f"model.stem: {error}.") from None
        options = (options or {}) | {"num_classes": 0, "img_size": image_size}
        try:
            vit = timm.create_model(name, pretrained=pretrained is True, **options)
        except Exception as error:  # timm and the hub raise whatever they like
            raise failed_stem(name, options, pretrained is True, error) from error
        patch = vit.patch_embed.patch_size[0]
        if image_size % patch:
            raise StudyError(f"data.image_size: {image_size} is no multiple of the patch {patch}.")
        self.vit = vit
        self.patch = image_size // vit.patch_embed.grid_size[0]  # also behind convolutions
        self.dim: int = vit.embed_dim
        self.grid: tuple[int, int] = vit.patch_embed.grid_size
        # Buffers, so that they lie where the model does and no step waits for them to get there.
        self.register_buffer("mean", _channels(vit.pretrained_cfg["mean"]), persistent=False)
        self.register_buffer("std", _channels(vit.pretrained_cfg["std"]), persistent=False)
        self.frozen = False
        if isinstance(pretrained, str | Path):
            load_weights(vit, Path(pretrained), name)

    def forward(self, images: Tensor) -> Features:
        """Normalised images (B, 3, S, S) → what the heads read of them."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            tokens = self.vit.forward_features(images)  # (B, prefix + h·w, C)
            pooled = self.vit.forward_head(tokens, pre_logits=True)  # (B, C)
            return Features(pooled, tokens[:, self.vit.num_prefix_tokens :])

    def feature_map(self, tokens: Tensor) -> Tensor:
        """Tokens (B, prefix + h·w, C) → (B, C, h, w), class and register tokens dropped."""
        return tokens[:, self.vit.num_prefix_tokens :].transpose(1, 2).unflatten(2, self.grid)

    def freeze(self, frozen: bool) -> None:
        """Stop (or resume) learning here: no gradients, and no dropout or drop path either."""
        self.frozen = frozen
        self.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Stem":
        super().train(mode)
        self.vit.train(mode and not self.frozen)
        return self


class Projection(nn.Linear):
    """A 1×1 convolution, (B, C, h, w) → (B, D, h, w), on a map whose channels lie last in memory.

    The stem's map is its tokens seen from another side; as a linear layer over tokens the
    projection needs no reordered copy, forward or backward.
    """

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.movedim(1, 3)).movedim(3, 1)


def _channels(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


def load_weights(vit: VisionTransformer, file: Path, name: str) -> None:
    """Load a weights file in timm's key names into ``vit``, all but the classification head."""
    try:
        if file.suffix == ".safetensors":
            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # code, not tensors, or no pickle at all
        raise StudyError(
            f"{file}: holds more than tensors, or none, and is refused; expected a safetensors or "
            ".pth file of a state dict."
        ) from error
    except Exception as error:  # of the system, zip archives and safetensors
        raise StudyError(f"{file}: cannot be read as weights ({error}).") from error
    try:
        # Resamples position embeddings; a model without a head has no place for the head's weights.
        state = checkpoint_filter_fn(state.get("model", state), vit)
        own = vit.state_dict()
        state = {key: v for key, v in state.items() if key in own or not key.startswith(HEADS)}
        missing, unexpected = vit.load_state_dict(state, strict=False)
    except (RuntimeError, AttributeError, TypeError, KeyError) as error:
        raise StudyError(f"{file}: these are no weights of {name!r}: {error}") from error
    if missing or unexpected:
        raise StudyError(
            f"{file}: these are no weights of {name!r}; missing {missing[:3]}, "
            f"unexpected {unexpected[:3]}."
        )
    broken = [key for key, values in state.items() if not values.isfinite().all()]
    if broken:
        raise StudyError(f"{file}: {broken[0]} holds values that are not finite. Fetch it again.")


def failed_stem(
    name: str, options: dict[str, bool | int | float | str], pretrained: bool, error: Exception
) -> StudyError:
    """timm knows the model and raised ``error`` when building it."""
    unknown = UNKNOWN_ARGUMENT.search(str(error))
    if unknown:
        valid = list(inspect.signature(VisionTransformer.__init__).parameters)[1:]
        near = difflib.get_close_matches(unknown[1], valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(valid)}."
        return StudyError(f"model.stem_options.{unknown[1]}: {name!r} takes no such one; {hint}")
    hint = ""
    if pretrained and not isinstance(error, TypeError):
        hint = " Without a network, give a weights file: --config weights=PATH."
    return StudyError(f"model.stem: timm could not build {name!r} with {options}: {error}.{hint}")
