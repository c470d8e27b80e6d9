"""A study as one frozen, validated object: its keys, what identifies its runs, and its file.

In this order: types of values, the sections with every key, its bounds and its default, the study
itself, and reading it from YAML or JSON with plain words for what is wrong. Nothing else reads YAML
of users.
"""

import difflib
import json
import logging
import math
import os
import re
import reprlib
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from hybridlungvit.io import StudyError, telling, value_sha256, write_json
from hybridlungvit.paths import Layout

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
ClassName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]*$", max_length=40)]
CLASSES = ("NORMAL", "PNEUMONIA")
"""Kermany's class folders. Records keep these two names for label 0 and 1 of any study."""


NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)e[-+]?\d{1,3}", re.I)
UserPath = Annotated[str, AfterValidator(os.path.expanduser)]
LOADING = {
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict",
    "checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit", "features_only",
    "feature_cfg", "pruned",
}  # fmt: skip
"""Arguments of ``timm.create_model`` that shape no vision transformer; some load files."""
UNPRINTABLE = re.compile(r"[^ \t\n\r\u00a0!-#%-{}~¡-ĥĨ-ķĹ-ľŁ-ňŊ-ťŨ-ž‐-―‘-‚“-„†-•…‰‹›€™]")
"""What the paper's fonts lack (T1, with pdfTeX), all but Latin letters and common signs; and $ and
|, which figures and cards take for marks."""


def printed(text: str) -> str:
    """The text; raises ``ValueError`` for one that the paper cannot print."""
    wrong = UNPRINTABLE.search(text)
    if wrong:
        raise ValueError(f"the paper cannot print {wrong[0]!a}; write it in Latin letters or words")
    return text


Printed = Annotated[str, AfterValidator(printed)]


@cache
def timm_names() -> tuple[list[str], set[str]]:
    """Timm's vision transformers, and the names of their weights and their old names.

    Read from timm's sources: importing timm takes seconds, and every command reads the config.
    Empty where timm is not installed.
    """
    timm = find_spec("timm")
    if timm is None or timm.origin is None:
        return [], set()
    modules = ("deit", "vision_transformer", "vision_transformer_hybrid")
    paths = [Path(timm.origin).parent / "models" / f"{module}.py" for module in modules]
    text = "".join(path.read_text(encoding="utf-8") for path in paths)
    known = re.findall(r"^@register_model\ndef (\w+)\(", text, re.M)
    # Names of weights and old names are the keys of dictionaries.
    return known, set(re.findall(r"^    '([\w.-]+)':", text, re.M))


def known_stem(name: str) -> str:
    """The name, if timm has such an architecture or is not installed where the config is read.

    Raises
    ------
    ValueError : timm defines no vision transformer of this name; tells similar ones.
    """
    known, keys = timm_names()
    published = name.replace("_clip_quickgelu_", "_clip_")  # timm derives these from those
    named = name in known or name in keys
    if not known or named or (published in keys and name.split(".")[0] in known):
        return name
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


class Phantom(Section):
    """Synthetic chest X-rays in the folder layout of the real ones (source: phantom)."""

    train_images: Positive = 320
    test_images: Positive = 160
    pneumonia_fraction: Fraction = 0.74
    contrast: Annotated[float, Field(ge=0)] = 1.0
    """Mean strength of the opacities: the one knob of difficulty."""
    median_width: Annotated[int, Field(ge=64)] = 320
    """Median image width in pixels; sizes spread around it as the real ones do."""
    seed: Seed = 0


class Data(Section):
    source: Literal["folder", "phantom", "mendeley", "pneumoniamnist"] = "folder"
    """folder: data_root; phantom: generated; the others are downloaded, if data_root is not set."""
    url: str | None = None
    """Another address of the downloaded file; null: the publisher's."""
    checksum: Annotated[str, Field(pattern=r"^([0-9a-f]{32}|[0-9a-f]{64})$")] | None = None
    """MD5 or SHA-256 that the download must have; null: the publisher's or the first one's."""
    mnist_size: Literal[28, 64, 128, 224] | None = None
    """Which PneumoniaMNIST; null: the smallest with at least image_size pixels a side."""
    image_size: Annotated[int, Field(ge=32)] = 224
    """Side S of the square network input, in pixels; a multiple of the stem's patch."""
    validation_folds: Annotated[int, Field(ge=2)] = 10
    """One of this many stratified folds of train is held out for validation."""
    validation_split: Literal["patient", "image"] = "patient"
    """image: ignore patients, so that validation leaks; only to measure what a leak is worth."""
    split_seed: Seed = 0
    max_train_images: Annotated[int, Field(ge=20)] | None = None
    """Keep whole patients of train up to this many images, validation included; null keeps all."""
    annotations: UserPath | None = None
    """CSV with the columns image, class and mask: lungs drawn by a reader (source: folder). They
    measure the lung masks and train nothing; of Kermany's, the reporting half counts."""
    masks: UserPath | None = None
    """Folder with a lung mask for each image, PNG or NPY, under the image's path or its name
    without the suffix; null: masks are fitted."""
    classes: tuple[ClassName, ClassName] = CLASSES
    """The folders below train/ and test/ (source: folder): label 0, and label 1, the positive."""
    patients: str | None = None
    """Who is on an image (source: folder): a CSV with the columns image and patient, or a regular
    expression whose one group is the patient in the image's path; null: Kermany's file names."""
    phantom: Phantom = Phantom()

    @property
    def class_words(self) -> tuple[str, str]:
        """The classes as they are called in a sentence; TB and other short names keep capitals."""
        first, second = (
            name.lower() if name.isupper() and name.isalpha() and len(name) > 5 else name
            for name in self.classes
        )
        return first.replace("_", " "), second.replace("_", " ")

    @property
    def own_images(self) -> bool:
        """Whether the images are a user's own: Kermany's need neither key."""
        return self.classes != CLASSES or self.patients is not None

    @property
    def patients_file(self) -> str | None:
        """The table of patients, where ``patients`` names one."""
        return self.patients if str(self.patients).lower().endswith(".csv") else None

    @model_validator(mode="after")
    def _folders_and_patients(self) -> Self:
        if self.classes[0].lower() == self.classes[1].lower():
            raise ValueError(f"classes: two names are needed, not {self.classes[0]} twice")
        if self.source in ("phantom", "pneumoniamnist"):
            for key, default in (("classes", CLASSES), ("patients", None)):
                if getattr(self, key) != default:
                    raise ValueError(f"{key}: source {self.source!r} has its own; remove the key")
        return self

    @field_validator("patients")
    @classmethod
    def _table_or_expression(cls, value: str | None) -> str | None:
        if value is None:
            return value
        if value.lower().endswith(".csv"):
            return os.path.expanduser(value)  # noqa: PTH111
        try:
            groups = re.compile(value).groups
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"neither a .csv file nor a regular expression ({error})") from None
        if groups != 1:
            raise ValueError(
                f"the regular expression must have one group (...), not {groups}; the name of a "
                "table ends in .csv"
            )
        return value


class Model(Section):
    head: Literal["hybrid", "linear"] = "hybrid"
    """hybrid: lung tokens and cross-attention; linear: a linear layer on the plain stem."""
    readout: Literal["timm", "class_and_mean"] = "timm"
    """The linear head reads: timm, what timm's classifier does; class_and_mean, the class token and
    the mean of the patch tokens."""
    stem: KnownStem = "deit_base_patch16_224"
    """Any timm vision transformer by name."""
    pretrained: Annotated[bool | UserPath, Field(union_mode="left_to_right")] = True
    """true: timm's published weights; false: random; or a safetensors or .pth file."""
    stem_options: dict[str, bool | int | float | str] = {}
    """Further arguments of the timm constructor, such as depth or patch_size."""
    d_model: Positive = 256
    token_grid: Positive = 4
    """Each of left, right and global is pooled to a square grid with this many tokens a side."""
    map_size: Positive = 56
    encoder_layers: Positive = 2
    fusion_layers: Positive = 1
    """Successive cross-attentions of the class token to left and right."""
    heads: Positive = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    pooling: Literal["side", "lung"] = "side"
    """A left or right token averages: side, its whole cell; lung, the lung in it, if any."""
    cut: Literal["mask", "midline", "none"] = "mask"
    """mask: at the lung mask's mean x; midline: at the image's centre; none: no cut, and both sides
    read the whole image."""
    cut_shift: Annotated[float, Field(ge=-0.5, le=0.5)] = 0.0
    """Added to the cut, as a share of the width: what an error of the mask costs."""
    mask: Literal["own", "other", "random"] = "own"
    """own: the image's lung mask; and as controls, other: another patient's; random: a cut anywhere
    in the middle half of the width instead."""

    @field_validator("stem_options")
    @classmethod
    def _numbers_as_text(cls, value: dict[str, Any]) -> dict[str, Any]:
        """1e-5, which YAML 1.1 takes for text, as the number that any other key would read."""
        return {key: float(v) if NUMBER.fullmatch(str(v)) else v for key, v in value.items()}

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} must be a multiple of heads {self.heads}")
        loads = LOADING & self.stem_options.keys()
        if loads:
            raise ValueError(f"stem_options: {min(loads)} is none of the architecture; remove it")
        large = [k for k, v in self.stem_options.items() if not isinstance(v, str) and v > 10_000]
        if large:
            raise ValueError(f"stem_options: {large[0]} must be at most 10,000")
        return self


class Training(Section):
    epochs: Positive = 20
    batch_size: Positive = 16
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """focal: that of Lin et al. (2017)."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """How strongly the focal loss discounts what is already right; 0 is cross-entropy, but for
    how class weights meet label smoothing."""
    lambda_seg: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the lung segmentation loss; 0 builds no segmentation head."""
    lambda_att: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the divergence between cross-attention and each token's share of the lungs."""
    patience: Positive = 5
    """Stop after this many epochs without a better validation AUC, counted from the unfreezing."""
    freeze_epochs: Count | Literal["all"] = 3
    """Epochs with a frozen stem; all: the stem never unfreezes."""
    unfreeze_factor: Annotated[float, Field(gt=0)] = 0.2
    """The learning rate once the stem is unfrozen, as a multiple of learning_rate."""
    unfreeze_lowers: Literal["all", "stem"] = "all"
    """all: unfreeze_factor scales every learning rate; stem: the stem's only."""
    frozen_views: Count = 0
    """With a frozen stem (freeze_epochs: all): its features of this many augmented views
    of each training image are computed once and trained on; 0: the stem runs in every step."""
    plateau_factor: OpenFraction = 0.5
    """Factor on the learning rate after more than plateau_patience epochs without a better
    validation AUC."""
    plateau_patience: Count = 2
    class_weights: bool = True
    """Weight the cross-entropy inversely to class frequency."""
    sampler: bool | tuple[Fraction, Fraction] = True
    """Draw classes equally often (WeightedRandomSampler), or with these shares of normal and
    pneumonia; false: every image once an epoch."""
    amp: bool = True
    """Mixed precision on a GPU; the CPU always computes in float32."""

    def frozen(self, epoch: int) -> bool:
        """Whether the stem is frozen in this epoch (counted from 0)."""
        return self.freeze_epochs == "all" or epoch < self.freeze_epochs

    @property
    def first_counted(self) -> int:
        """The epoch, from 0, with which patience and plateau begin: the first of the whole model.

        Where the stem never unfreezes, that is the first.
        """
        return 0 if self.freeze_epochs == "all" else self.freeze_epochs

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.frozen_views and self.freeze_epochs != "all":
            raise ValueError("frozen_views needs a stem that never learns; set freeze_epochs: all")
        if isinstance(self.sampler, tuple) and (0 in self.sampler or sum(self.sampler) != 1):
            raise ValueError("sampler: the two shares must be above zero and add up to 1")
        return self


class Augmentation(Section):
    crop_scale: tuple[Fraction, Fraction] = (0.8, 1.0)
    """Range of the cropped share of the area (RandomResizedCrop)."""
    crop_ratio: tuple[float, float] = (0.9, 1.1)
    flip: Fraction = 0.5
    rotation: Annotated[float, Field(ge=0, le=180)] = 10.0
    """Largest angle, in degrees."""
    brightness: Fraction = 0.15
    contrast: Fraction = 0.15
    randaugment: Count = 0
    """Exposure operations of RandAugment on each image, after the above; 0: none."""
    randaugment_magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    mix: Literal["none", "mixup", "cutmix"] = "none"
    """Mixing of the images of a batch in pairs, labels included."""
    mix_alpha: Annotated[float, Field(gt=0)] = 0.2
    """Both parameters of the Beta distribution that the mixing weight is drawn from."""

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Self:
        for key, (low, high) in (("crop_scale", self.crop_scale), ("crop_ratio", self.crop_ratio)):
            if not 0 < low <= high:
                raise ValueError(f"{key} must be two positive numbers in ascending order")
        return self


class Evaluation(Section):
    tta: bool = True
    """Average the probabilities of the image and its mirror."""
    threshold: OpenFraction = 0.5
    batch_size: Positive = 32


class Statistics(Section):
    resamples: Annotated[int, Field(ge=100)] = 10_000
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    seed: Seed = 0
    sensitivity_target: Annotated[float, Field(gt=0, le=1)] = 0.95
    """What the sensitive operating point must reach on validation images."""
    prevalences: list[OpenFraction] = [0.05, 0.1, 0.2, 0.3, 0.5]
    """Prevalences of pneumonia for which predictive values are tabulated."""
    margin: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """Equivalence margin, a difference of AUCs; to be declared before any test image is scored."""
    family: list[Name] | None = None
    """Variants whose comparison with the reference is adjusted for (Holm); null: all of them.
    The others are exploratory: their p-values stay as they are and are marked."""


class Explanation(Section):
    """How heat maps are examined. Nothing here decides a training or a prediction."""

    subsample: Annotated[int, Field(ge=2)] = 64
    """Test images, drawn at random, for the checks that need many maps of one image."""
    removed: Annotated[list[OpenFraction], Field(min_length=1)] = [0.1, 0.3, 0.5]
    """Shares of the pixels that the faithfulness check removes, hottest first."""
    batch_size: Positive = 32
    seed: Seed = 0


class Compute(Section):
    """What a job may use. Thread counts are part of a run's identity: they order the sums."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(gt=0, le=1024)] = 2
    """Threads of one training or prediction job."""
    loader_workers: Annotated[int, Field(ge=0, le=1024)] = 1
    """Processes that prepare batches; they do not change the results."""
    memory_mb: Positive = 8000
    runtime_minutes: Positive = 720


TUNABLE = ("model", "training", "augmentation", "evaluation")
NEUTRAL: dict[str, dict[str, Any]] = {
    "data": {"masks": None, "classes": list(CLASSES), "patients": None},
    "model": {
        "readout": "timm", "fusion_layers": 1, "pooling": "side", "cut_shift": 0.0, "mask": "own"
    },
    "training": {"unfreeze_lowers": "stem", "frozen_views": 0},
}  # fmt: skip
"""Keys that came after the first published runs, at what those did: there they count for nothing,
so that a new key gives no finished run another name."""


def _without_neutral(values: dict[str, Any]) -> dict[str, Any]:
    """Sections of values without those keys that are ``NEUTRAL``, and files without their paths.

    Masks and tables of patients count by content: in the mask table and in the manifest.
    """
    kept = dict(values)
    for section, neutral in NEUTRAL.items():
        items = values[section].items()
        kept[section] = {k: v for k, v in items if k not in neutral or v != neutral[k]}
    data = kept["data"]
    if "masks" in data:
        data["masks"] = "files"
    if str(data.get("patients")).lower().endswith(".csv"):
        data["patients"] = "file"
    return kept


class Variant(Section):
    """A row of the ablation: a name in print and the keys it overrides."""

    label: Printed
    description: Printed
    model: dict[str, Any] = {}
    training: dict[str, Any] = {}
    augmentation: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}


class Recipe(Section):
    """One variant with all overrides applied: what a single run needs to know."""

    data: Data
    model: Model
    training: Training
    augmentation: Augmentation
    evaluation: Evaluation
    compute: Compute

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        self._require_fit()
        for key in ("lambda_seg", "lambda_att"):
            if self.model.head == "linear" and getattr(self.training, key) > 0:
                raise ValueError(
                    f"training.{key}: the linear head has no lung tokens and no segmentation; set "
                    "it to 0, or model.head to hybrid"
                )
        if self.training.lambda_att > 0 and self.model.cut == "none":
            raise ValueError(
                "training.lambda_att: with model.cut none no token has a side; set it to 0"
            )
        if self.model.head == "hybrid" and self.model.stem_options.get("patch_drop_rate"):
            raise ValueError(
                "model.stem_options.patch_drop_rate: the map of patches must be whole; remove it"
            )
        images = {
            "training.lambda_seg": self.training.lambda_seg > 0,
            "augmentation.mix": self.augmentation.mix != "none",
            "augmentation.randaugment": self.augmentation.randaugment > 0,
        }
        if self.training.frozen_views and any(images.values()):
            wrong = ", ".join(key for key, used in images.items() if used)
            raise ValueError(f"training.frozen_views: {wrong} would need the images in each step")
        return self

    def _require_fit(self) -> None:
        """Patches must fill the image, and the token grid must not outgrow the map of them.

        Says nothing when neither the stem's name nor its options tell the patch: the stem will.
        """
        named = re.search(r"patch(\d+)", self.model.stem)
        patch = self.model.stem_options.get("patch_size", int(named[1]) if named else None)
        if not isinstance(patch, int) or patch < 1:
            return
        side, grid = self.data.image_size, self.model.token_grid
        cells = side // patch
        if side % patch:
            near = max(1, round(side / patch)) * patch
            raise ValueError(
                f"data.image_size: {side} is no multiple of the stem's patch of {patch} px; "
                f"{near} is"
            )
        if self.model.head == "hybrid" and grid > cells:
            raise ValueError(
                f"model.token_grid: {grid} is more than the {cells} × {cells} patches of the stem "
                f"({side} px, {patch} px each); a finer grid costs memory and adds nothing"
            )

    def data_identity(self) -> dict[str, Any]:
        """The values that decide the manifest and the cache."""
        places = {"data": {"annotations", "url", "checksum"}}
        identity = _without_neutral(self.model_dump(mode="json", exclude=places))["data"]
        if self.data.source == "mendeley":
            identity["source"] = "folder"  # the same images, fetched or at hand
        if self.data.source != "phantom":
            identity.pop("phantom")
        return identity

    def training_identity(self) -> dict[str, Any]:
        """The values that decide a checkpoint; a weights file counts by content, not by path."""
        values = _without_neutral(self.model_dump(mode="json"))
        if isinstance(self.model.pretrained, str):
            values["model"]["pretrained"] = "file"
        return {
            "data": self.data_identity(),
            "model": values["model"],
            "training": values["training"],
            "augmentation": self.augmentation.model_dump(mode="json"),
            "compute": {"device": self.compute.device, "threads": self.compute.threads},
        }

    def feature_identity(self) -> dict[str, Any]:
        """The values that decide the features of a stem that never learns."""
        values = self.training_identity()
        kept = {key: values["model"][key] for key in ("stem", "pretrained", "stem_options")}
        views = {"views": self.training.frozen_views, "augmentation": values["augmentation"]}
        return {"data": values["data"], "model": kept} | views


class Study(Section):
    """Everything that names a study, with the defaults of the full one."""

    study: Name
    """Names the folders of its results and of its paper's parts."""
    title: Printed
    """Title of the paper."""
    data_root: UserPath | None = None
    """Folder with train/ and test/ (source: folder)."""
    weights: Annotated[bool | UserPath | None, Field(union_mode="left_to_right")] = None
    """Replaces model.pretrained of the base model; for the command line."""
    seeds: Annotated[list[Seed], Field(min_length=1)]
    """Each variant is trained once for each."""
    reference: Name
    """The variant with which all others are compared."""
    data: Data = Data()
    model: Model = Model()
    training: Training = Training()
    augmentation: Augmentation = Augmentation()
    evaluation: Evaluation = Evaluation()
    statistics: Statistics = Statistics()
    explanation: Explanation = Explanation()
    compute: Compute = Compute()
    variants: Annotated[dict[Name, Variant], Field(min_length=1)]
    """Of each its label, its description, and the keys that differ from the base, by section."""
    omitted: dict[Name, Printed] = {}
    """Variants of the full study that this one leaves out, each with the reason."""
    source_note: Printed | None = None
    """A sentence for the paper on what the images really are."""
    stem_note: Printed | None = None
    """A sentence for the paper on where the stem's weights come from."""
    protocol_note: Printed | None = None
    """Sentences for the paper on how and when settings were chosen."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"seeds {SHORT.repr(self.seeds)} repeat a number; each seed is a run of its own"
            )
        if "comparisons" in self.variants:
            raise ValueError("variants: 'comparisons' is the name of a result file; choose another")
        both = sorted(set(self.omitted) & set(self.variants))
        if both:
            raise ValueError(f"omitted: {', '.join(both)} is a variant too; keep it in one place")
        if self.reference not in self.variants:
            raise ValueError(
                f"reference {self.reference!r} is no variant; choose one of {list(self.variants)}"
            )
        family = self.comparison_family()
        wrong = len(set(family)) < len(family) or not set(family) <= {*self.variants}
        if wrong or self.reference in family:
            raise ValueError(
                f"statistics.family {self.statistics.family} must name each variant once and not "
                f"the reference; choose from {[v for v in self.variants if v != self.reference]}"
            )
        source = self.data.source
        if source != "phantom" and self.data.phantom != Phantom():
            raise ValueError(f"data.phantom is set, but data.source is {source!r}.")
        if source == "phantom" and self.data_root is not None:
            raise ValueError(
                "data_root is set, but data.source is 'phantom', which reads no images. Take a "
                "study of real ones, such as config/kermany-cpu.yaml."
            )
        if source == "phantom" and self.data.annotations is not None:
            raise ValueError("data.annotations is set, but phantoms bring their own.")
        return self

    def comparison_family(self) -> list[str]:
        """The variants whose comparison with the reference is confirmatory."""
        if self.statistics.family is not None:
            return list(self.statistics.family)
        return [variant for variant in self.variants if variant != self.reference]

    def recipe(self, variant: str) -> Recipe:
        """The base sections with one variant's overrides; raises pydantic's ``ValidationError``."""
        values = {key: getattr(self, key).model_dump() for key in TUNABLE}
        if self.weights is not None:
            values["model"]["pretrained"] = self.weights
        for key in TUNABLE:
            values[key] |= getattr(self.variants[variant], key)
        return Recipe(data=self.data, compute=self.compute, **values)

    def trained_as(self, variant: str) -> str:
        """The first variant with the same training: evaluation-only variants share checkpoints."""
        return self._first_alike(variant, Recipe.training_identity)

    def features_as(self, variant: str) -> str:
        """The first variant whose frozen stem gives the same features, computed under its name."""
        return self._first_alike(variant, Recipe.feature_identity)

    def _first_alike(self, variant: str, identity: Callable[[Recipe], dict[str, Any]]) -> str:
        """The first variant of this identity that starts from weights of the same name.

        An identity leaves out where a file of weights lies, which here tells two files apart.
        """

        def of(name: str) -> tuple[dict[str, Any], object]:
            recipe = self.recipe(name)
            return identity(recipe), recipe.model.pretrained

        wanted = of(variant)
        return next(v for v in self.variants if of(v) == wanted)

    def trained_variants(self) -> list[str]:
        """The variants that own a training, in the order of the config."""
        return [v for v in self.variants if self.trained_as(v) == v]

    def values_sha256(self) -> str:
        """Hash of every value but those that say where things lie on a machine."""
        places = {"data_root": True, "weights": True, "data": {"annotations", "url", "checksum"}}
        return value_sha256(_without_neutral(self.model_dump(mode="json", exclude=places)))

    def prediction_hash(self, variant: str) -> str:
        """Hash of the config values behind a variant's predictions: of checkpoint and scoring."""
        recipe = self.recipe(variant)
        return value_sha256(recipe.training_identity() | {"tta": recipe.evaluation.tta})

    def training_hash(self, variant: str) -> str:
        """Hash of the config values behind a variant's checkpoints."""
        return value_sha256(self.recipe(variant).training_identity())


log = logging.getLogger(__name__)
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 80
Content = TypeVar("Content", bound=BaseModel)
MOST_VALUES = 100_000  # the largest study has a few hundred


def load_study(path: Path) -> Study:
    """Read and validate ``path`` (YAML, or the workflow's resolved JSON).

    Raises ``StudyError`` naming the file, the key, what was expected and the nearest valid key.
    """
    return study_from(read_yaml(path), str(path))


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
        with telling(path, "read"):
            text = path.read_text(encoding="utf-8")
        # JSON is not quite YAML 1.1, which takes 5e-05 for text.
        values = json.loads(text) if path.suffix == ".json" else yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise StudyError(f"{path}: not valid YAML or JSON: {error}") from error
    if not isinstance(values, dict):
        raise StudyError(f"{path}: expected a mapping of keys, as in config/demo.yaml.")
    if "__use_yte__" in values:
        raise StudyError(f"{path}: __use_yte__ has Snakemake run code in this file. Remove it.")
    return values


def _require_plain(values: Any, source: str) -> None:
    """Refuse what no study holds: aliases that multiply, and halves of a UTF-16 pair."""
    waiting = [values]
    for _ in range(MOST_VALUES):
        if not waiting:
            return
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and any(0xD800 <= ord(sign) < 0xE000 for sign in value):
            raise StudyError(f"{source}: {ascii(value)[:80]} holds half a character. Type it anew.")
    raise StudyError(
        f"{source}: holds more than {MOST_VALUES:,} values, counting what an alias repeats."
    )


def study_from(values: dict[str, Any], source: str) -> Study:
    """Validate plain values; ``source`` names their origin in messages."""
    _require_plain(values, source)
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
        own = study.data.model_copy(update={"source": "folder"})
        study = study.model_copy(update={"data": own})
    return study


def say_what_never_acts(study: Study, source: str) -> None:
    """Warn of schedules that can never act in so short a training, and of hopeless comparisons."""
    family, most = len(study.comparison_family()), 1 - study.statistics.level
    enough = math.ceil(2 * family / most)  # the smallest p-value is 2 / (resamples + 1)
    if study.statistics.resamples < enough:
        log.warning(
            "%s: statistics.resamples: %d can decide none of %d comparisons after Holm's adjustment"
            "; take %d or more.", source, study.statistics.resamples, family, enough,
        )  # fmt: skip
    for variant in study.trained_variants():
        training = study.recipe(variant).training
        left = training.epochs - training.first_counted
        # Where no epoch went before, the first one counted is better than none.
        rests = left - (training.first_counted == 0)
        if rests <= min(training.plateau_patience + 1, training.patience):
            log.warning(
                "%s: variants.%s: keys without effect: plateau_patience %d and patience %d are too "
                "long for the %d epochs in which they count.",
                source, variant, training.plateau_patience, training.patience, left,
            )  # fmt: skip
            return


def reference() -> str:
    """Every key of a study file with its default and meaning, as Markdown: docs/config.md."""
    lines = ["# Every key of a study file", "", "Written by `hybridlungvit keys`; do not edit."]
    sections: dict[str, type[BaseModel]] = {"the study itself": Study}
    while sections:
        name, section = sections.popitem()
        lines += ["", f"## {name}", "", "| key | default | meaning |", "| --- | --- | --- |"]
        nested = {}
        for key, item in section.model_fields.items():
            if isinstance(item.default, Section):
                nested[key if section is Study else f"{name}.{key}"] = type(item.default)
                continue
            default = "required" if item.is_required() else f"`{json.dumps(item.default)}`"
            meaning = " ".join((item.description or "").split()).replace("|", "\\|")
            lines.append(f"| `{key}` | {default} | {meaning} |")
        sections |= dict(reversed(nested.items()))
    return "\n".join(lines) + "\n"


def save_resolved(study: Study, layout: Layout) -> Path:
    """Write the study with every default filled in, once, under a name that follows its values.

    And their order: that of the variants is that of the tables' rows.
    """
    require_folder(layout)
    values = study.model_dump(mode="json")
    path = layout.root / "config" / f"{value_sha256(json.dumps(values))[:16]}.json"
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


def read_model(path: Path, model: type[Content]) -> Content:
    """The content of a YAML file as ``model``; raises ``StudyError`` naming file, key and value."""
    try:
        return model.model_validate(read_yaml(path))
    except ValidationError as error:
        raise StudyError(_explain(error, model, str(path))) from error


def _explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            valid = _fields_at(model, item["loc"][:-1])
            near = difflib.get_close_matches(str(item["loc"][-1]), valid, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}."
            message = f"unknown key; {hint}"
        elif item["type"] == "missing" and model is Study:
            message = "missing; add it as in config/demo.yaml."
        elif item["type"] not in ("missing", "value_error"):
            message += f" (found {SHORT.repr(item['input'])})"
        lines.append(f"{source}: {key + ': ' if key else ''}{message}")
    return "\n".join(lines)


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The field names of the section that ``location`` leads to."""
    for part in location:
        if part not in model.model_fields:
            continue  # a name the user chose, such as a variant's
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)]
        sections = (c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
        model = next(sections, model)  # a variant may have the name of a key
    return list(model.model_fields)
