"""The sections of a study file: every key with its bounds and its default."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hybridlungvit.configtypes import Count, Fraction, KnownStem, Name, Positive, Section, UserPath


class Phantom(Section):
    """Synthetic chest X-rays in the folder layout of the real ones (source: phantom)."""

    train_images: Positive = 320
    test_images: Positive = 160
    pneumonia_fraction: Fraction = 0.74
    contrast: Annotated[float, Field(ge=0)] = 1.0
    """Mean strength of the opacities: the one knob of difficulty."""
    median_width: Annotated[int, Field(ge=64)] = 320
    """Median image width in pixels; sizes spread around it as the real ones do."""
    seed: Count = 0


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
    split_seed: Count = 0
    max_train_images: Annotated[int, Field(ge=20)] | None = None
    """Keep whole patients of train up to this many images, validation included; null keeps all."""
    annotations: UserPath | None = None
    """CSV with the columns image, class and mask: lungs drawn by a reader (source: folder). They
    measure the lung masks and train nothing; only patients of the reporting half count."""
    phantom: Phantom = Phantom()


class Model(Section):
    head: Literal["hybrid", "linear"] = "hybrid"
    """hybrid: lung tokens and cross-attention; linear: a linear layer on the plain stem."""
    stem: KnownStem = "deit_base_patch16_224"
    """Any timm vision transformer by name."""
    pretrained: Annotated[bool | UserPath, Field(union_mode="left_to_right")] = True
    """true: timm's published weights; false: random; or a safetensors or .pth file."""
    stem_options: dict[str, bool | int | float | str] = {}
    """Further arguments of the timm constructor, such as depth or patch_size."""
    d_model: Positive = 256
    token_grid: Positive = 4
    """Each of left, right and global is pooled to this many tokens squared."""
    map_size: Positive = 56
    encoder_layers: Positive = 2
    heads: Positive = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    cut: Literal["mask", "midline"] = "mask"
    """Where left and right part: at the lung mask's mean x, or at the image's centre."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} must be a multiple of heads {self.heads}")
        return self


class Training(Section):
    epochs: Positive = 20
    batch_size: Positive = 16
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """How strongly the focal loss discounts what is already right; 0 is cross-entropy."""
    lambda_seg: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the lung segmentation loss; 0 builds no segmentation head."""
    lambda_att: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the divergence between cross-attention and each token's share of the lungs."""
    patience: Positive = 5
    """Stop after this many epochs without a better validation AUC."""
    freeze_epochs: Count | Literal["all"] = 3
    """Epochs with a frozen stem; all: the stem never unfreezes."""
    unfreeze_factor: Annotated[float, Field(gt=0)] = 0.2
    """The stem's learning rate as a multiple of the head's."""
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    plateau_patience: Count = 2
    class_weights: bool = True
    """Weight the cross-entropy inversely to class frequency."""
    sampler: bool = True
    """Draw classes equally often (WeightedRandomSampler)."""
    amp: bool = True
    """Mixed precision on a GPU; the CPU always computes in float32."""

    def frozen(self, epoch: int) -> bool:
        """Whether the stem is frozen in this epoch (counted from 0)."""
        return self.freeze_epochs == "all" or epoch < self.freeze_epochs


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
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    batch_size: Positive = 32


class Statistics(Section):
    resamples: Annotated[int, Field(ge=100)] = 10_000
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    seed: Count = 0
    sensitivity_target: Annotated[float, Field(gt=0, le=1)] = 0.95
    """What the sensitive operating point must reach on validation images."""
    prevalences: list[Annotated[float, Field(gt=0, lt=1)]] = [0.05, 0.1, 0.2, 0.3, 0.5]
    """Shares of pneumonia for which predictive values are tabled."""
    family: list[Name] | None = None
    """Variants whose comparison with the reference is adjusted for (Holm); null: all of them.
    The others are exploratory: their p-values stay as they are and are marked."""


class Explanation(Section):
    """How heat maps are examined. Nothing here decides a training or a prediction."""

    subsample: Annotated[int, Field(ge=2)] = 64
    """Test images, drawn at random, for the checks that need many maps of one image."""
    removed: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)] = [
        0.1,
        0.3,
        0.5,
    ]
    """Shares of the pixels that the faithfulness check removes, hottest first."""
    batch_size: Positive = 32
    seed: Count = 0


class Compute(Section):
    """What a job may use. Thread counts are part of a run's identity: they order the sums."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Positive = 2
    """Threads of one training or prediction job."""
    loader_workers: Count = 1
    """Processes that prepare batches; they do not change the results."""
    memory_mb: Positive = 8000
    runtime_minutes: Positive = 720
