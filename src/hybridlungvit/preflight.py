"""What is looked at before the workflow starts: a failing job would first remove stored results."""

from collections.abc import Collection
from pathlib import Path

from hybridlungvit.config import Study
from hybridlungvit.evaluation.predictions import require_same
from hybridlungvit.io import StudyError, read_json
from hybridlungvit.paths import Layout

READ_IMAGES = {"manifest", "cache", "quality", "mask_benchmark", "examples"}


def check_start(
    study: Study, layout: Layout, planned: Collection[str], from_predictions: bool = False
) -> None:
    """Check images, weights and stored predictions before any of the planned rules runs.

    ``from_predictions``: the paper is to be made from what is stored, as `make paper` does.

    Raises
    ------
    StudyError : images or weights are missing, or stored predictions belong to another config.
    """
    root = study.data_root
    if root is not None and READ_IMAGES & set(planned) and not Path(root).is_dir():
        raise StudyError(
            f"data_root: no folder {root}. Give the one with train/ and test/, such as "
            "`--config data_root=PATH`."
        )
    data = study.data
    for key, known in (("annotations", data.annotations), ("patients", data.patients_file)):
        if known is not None and READ_IMAGES & set(planned) and not Path(known).is_file():
            raise StudyError(f"data.{key}: no file {known}. Give one, or leave the key out.")
    masks = study.data.masks
    if masks is not None and READ_IMAGES & set(planned) and not Path(masks).is_dir():
        raise StudyError(f"data.masks: no folder {masks}. Give one, or leave the key out.")
    if "pdf" not in planned:
        return
    if "train" not in planned and not from_predictions:
        _require_weights(study, layout)
    if "score" not in planned:
        _require_current(study, layout)


def _require_weights(study: Study, layout: Layout) -> None:
    """Without them Snakemake plans no training and takes what predictions it finds."""
    for variant in study.trained_variants():
        named = study.recipe(variant).model.pretrained
        trained = all(
            (layout.run(variant, seed) / "model.safetensors").is_file() for seed in study.seeds
        )
        if isinstance(named, str) and not Path(named).is_file() and not trained:
            raise StudyError(
                f"model.pretrained: no file {named}, so that {variant} cannot be trained. Give "
                "one, such as `--config weights=PATH`. The paper of stored predictions is made by "
                f"`make paper STUDY={study.study}`."
            )


def _require_current(study: Study, layout: Layout) -> None:
    for variant in study.variants:
        for seed in study.seeds:
            path = layout.predictions(variant, seed)
            record = path.with_suffix(".json")
            if path.is_file() and record.is_file():
                recorded = read_json(record)["config_sha256"]
                require_same(path, "config", recorded, study.prediction_hash(variant))
