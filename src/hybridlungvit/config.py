"""A study as one frozen, validated object, and what identifies its runs."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from hybridlungvit.configsections import (
    Augmentation,
    Compute,
    Data,
    Evaluation,
    Explanation,
    Model,
    Statistics,
    Training,
)
from hybridlungvit.configtypes import Count, Name, Section, UserPath, require_fit
from hybridlungvit.files import value_sha256

TUNABLE = ("model", "training", "augmentation", "evaluation")


class Variant(Section):
    """A row of the ablation: a name in print and the keys it overrides."""

    label: str
    description: str
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
    def _image_fits_the_stem(self) -> Self:
        require_fit(self.data.image_size, self.model)
        return self

    def data_identity(self) -> dict[str, Any]:
        """The values that decide the manifest and the cache."""
        identity = self.data.model_dump(mode="json", exclude={"annotations", "url", "checksum"})
        if self.data.source != "phantom":
            identity.pop("phantom")
        return identity

    def training_identity(self) -> dict[str, Any]:
        """The values that decide a checkpoint; a weights file counts by content, not by path."""
        model = self.model.model_dump(mode="json")
        if isinstance(self.model.pretrained, str):
            model["pretrained"] = "file"
        return {
            "data": self.data_identity(),
            "model": model,
            "training": self.training.model_dump(mode="json"),
            "augmentation": self.augmentation.model_dump(mode="json"),
            "compute": {"device": self.compute.device, "threads": self.compute.threads},
        }

    def prediction_identity(self) -> dict[str, Any]:
        """The values that decide the predictions: those of the checkpoint and of the scoring."""
        return self.training_identity() | {"tta": self.evaluation.tta}


class Study(Section):
    """Everything that names a study, with the defaults of the full one."""

    study: Name
    title: str
    data_root: UserPath | None = None
    """Folder with train/ and test/ (source: folder)."""
    weights: Annotated[bool | UserPath | None, Field(union_mode="left_to_right")] = None
    """Replaces model.pretrained of the base model; for the command line."""
    seeds: Annotated[list[Count], Field(min_length=1)]
    reference: Name
    data: Data = Data()
    model: Model = Model()
    training: Training = Training()
    augmentation: Augmentation = Augmentation()
    evaluation: Evaluation = Evaluation()
    statistics: Statistics = Statistics()
    explanation: Explanation = Explanation()
    compute: Compute = Compute()
    variants: Annotated[dict[Name, Variant], Field(min_length=1)]
    omitted: dict[Name, str] = {}
    """Variants of the full study that this one leaves out, each with the reason."""
    source_note: str | None = None
    """A sentence for the paper on what the images really are."""
    stem_note: str | None = None
    """A sentence for the paper on where the stem's weights come from."""
    other_study: UserPath | None = None
    """Config of another study of the same test images, to compare with variant by variant."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds} repeat a number; each seed is a run of its own")
        if "comparisons" in self.variants:
            raise ValueError("variants: 'comparisons' is the name of a result file; choose another")
        both = sorted(set(self.omitted) & set(self.variants))
        if both:
            raise ValueError(f"omitted: {', '.join(both)} is a variant too; keep it in one place")
        if self.reference not in self.variants:
            raise ValueError(
                f"reference {self.reference!r} is no variant; choose one of {list(self.variants)}"
            )
        wrong = [v for v in self.comparison_family() if v not in self.variants]
        if wrong or self.reference in self.comparison_family():
            raise ValueError(
                f"statistics.family {self.statistics.family} must name variants other than the "
                f"reference; choose from {[v for v in self.variants if v != self.reference]}"
            )
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
        wanted = self.recipe(variant).training_identity()
        return next(v for v in self.variants if self.recipe(v).training_identity() == wanted)

    def trained_variants(self) -> list[str]:
        """The variants that own a training, in the order of the config."""
        return [v for v in self.variants if self.trained_as(v) == v]

    def prediction_hash(self, variant: str) -> str:
        """Hash of the config values behind a variant's predictions."""
        return value_sha256(self.recipe(variant).prediction_identity())

    def training_hash(self, variant: str) -> str:
        """Hash of the config values behind a variant's checkpoints."""
        return value_sha256(self.recipe(variant).training_identity())
