"""Prediction files: reading them back only if they belong to the config at hand."""

import pandas as pd

from hybridlungvit.config import Study
from hybridlungvit.csvfile import read_table
from hybridlungvit.errors import StudyError
from hybridlungvit.files import file_sha256, read_json
from hybridlungvit.paths import Layout

COLUMNS = ["path", "patient", "split", "label", "subtype", "probability"]


def require_same(where: object, what: str, recorded: str, current: str) -> None:
    """Raise ``StudyError`` naming both hashes when a result belongs to another input."""
    if recorded != current:
        found = str(recorded)[:12]
        raise StudyError(
            f"{where}: made from {what} {found}, but the current {what} is {current[:12]}. "
            "Restore that one or run this stage again."
        )


def read_predictions(study: Study, variant: str, seed: int, layout: Layout) -> pd.DataFrame:
    """Read predictions after checking that they belong to the current config and are unaltered."""
    path = layout.predictions(variant, seed)
    record = read_json(path.with_suffix(".json"))
    require_same(path, "config", record["config_sha256"], study.prediction_hash(variant))
    if not path.is_file():
        raise StudyError(f"{path}: not found. Run `score --variant {variant} --seed {seed}`.")
    require_same(path, "file", record["predictions_sha256"], file_sha256(path))
    types = dict.fromkeys(COLUMNS, str) | {"label": int, "probability": float}
    return read_table(path, COLUMNS, types)
