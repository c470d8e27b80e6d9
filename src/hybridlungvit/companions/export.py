"""A trained run as a folder in the layout of the model hub: weights, config and model card."""

import tempfile
from pathlib import Path

from huggingface_hub import ModelCardData

from hybridlungvit.config import Study
from hybridlungvit.data.manifest import read_manifest, unit_of
from hybridlungvit.evaluation.predictions import read_predictions, require_same
from hybridlungvit.evaluation.score import load_run
from hybridlungvit.evaluation.temperature import fit_temperature
from hybridlungvit.io import StudyError, file_sha256, read_json, telling
from hybridlungvit.model.hub import CONFIG, WEIGHTS
from hybridlungvit.paper.format import format_interval
from hybridlungvit.paper.results import current_metrics
from hybridlungvit.paths import Layout
from hybridlungvit.predict import Published, load_checkpoint
from hybridlungvit.training.record import KEY

KERMANY = "hf-vision/chest-xray-pneumonia"
"""The Kermany chest X-rays on the hub, under the licence of their publication."""


def weights_line(study: Study, variant: str, seed: int, layout: Layout, half: bool) -> str:
    """Whose weights stand below a card, and what AUC they reach alone: the card is of all seeds."""
    auc = current_metrics(study, variant, layout)["seeds"][str(seed)]["auc"]
    unit = unit_of(read_manifest(layout.manifest))
    reached = f"{format_interval(auc)}, {100 * study.statistics.level:g} % CI over test {unit}s"
    return (
        f"**These are the weights of `{variant}` ({study.variants[variant].label}), seed {seed}: "
        f"test AUC {reached}{', before they were rounded to half precision' * half}. The card "
        f"below is that of the reference, `{study.reference}`, over all its seeds "
        f"({len(study.seeds)}).**"
    )


def export_run(
    study: Study, variant: str, seed: int, layout: Layout, folder: Path, half: bool
) -> None:
    """Write config.json, model.safetensors and README.md of a run to a new ``folder``, or nothing.

    With ``half`` the weights are float16; predicting computes with float32 either way. Raises
    ``StudyError`` for a run that is not the study's or not the one behind its predictions, and when
    the model card is not written yet.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StudyError(f"{folder}: exists already. Choose a new folder.")
    card = layout.companions / "model_card.md"
    if not card.is_file():
        raise StudyError(f"{card}: not found. Run `hybridlungvit text` for this study.")
    model = load_run(study, variant, seed, layout)  # fails if another config or manifest made it
    weights = layout.run(study.trained_as(variant), seed) / WEIGHTS
    trained = load_checkpoint(weights).description
    evaluation = study.recipe(variant).evaluation  # variants may share a run and differ in this
    scored = read_predictions(study, variant, seed, layout).query("split == 'val'")
    temperature = fit_temperature(scored.label.to_numpy(), scored.probability.to_numpy())
    record = read_json(layout.predictions(variant, seed).with_suffix(".json"))
    require_same(weights, "predictions", record["model_sha256"], file_sha256(weights))
    own = weights_line(study, variant, seed, layout, half)
    text = f"{own}\n\n{card.read_text(encoding='utf-8')}"
    published = Published(
        **trained.model_dump(exclude={"recipe", "temperature"}),
        temperature=temperature,
        recipe=trained.recipe.model_copy(update={"evaluation": evaluation}),
        study=study.study,
        variant=variant,
        seed=seed,
    )
    config = model._hub_mixin_config | {KEY: published.model_dump(mode="json")}
    synthetic, positive = study.data.source == "phantom", study.data.class_words[1]
    known = [] if study.data.own_images else ["pediatric"]
    tags = ["chest-x-ray", positive, *known, *(["synthetic"] if synthetic else [])]
    header = ModelCardData(  # what the hub lists a model by
        license="mit",
        library_name="hybridlungvit",
        pipeline_tag="image-classification",
        tags=tags,
        datasets=[KERMANY] if known and not synthetic else None,
    )
    with telling(folder, "written"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as drafts:
            draft = Path(drafts) / folder.name
            (model.half() if half else model).save_pretrained(draft, config=config)
            text = f"---\n{header.to_yaml()}\n---\n\n{text}"
            (draft / "README.md").write_text(text, encoding="utf-8")
            (draft / WEIGHTS).chmod((draft / CONFIG).stat().st_mode)
            draft.replace(folder)
