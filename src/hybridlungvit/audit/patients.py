"""Who stands on which side: by the project's patient key, and by a stricter reading of the names.

The stricter key lets a number alone name a child: ``person12`` under both subtypes, ``IM-0012``
with and without ``NORMAL2-``. It joins children who share nothing but a number, so it decides no
split; it says how much a wrong guess about the names could matter.
"""

from typing import Any

import numpy as np
import pandas as pd

SERIES = {"person": "person", "study": "IM-"}  # how the numbers of a series begin


def strict_key(patients: pd.Series) -> pd.Series:
    """The stricter key of each patient key; keys of other forms stay as they are."""
    keys = patients.str.replace(r"^(person\d+)_(?:bacteria|virus)$", r"\1", regex=True)
    return keys.str.replace(r"^NORMAL2-(IM-\d+)$", r"\1", regex=True)


def shared_numbers(manifest: pd.DataFrame) -> pd.Series:
    """Whether each image's strict key stands both in the test set and outside it, bool (N,)."""
    keys, test = strict_key(manifest.patient), manifest.split == "test"
    return keys.isin(set(keys[test]) & set(keys[~test]))


def describe_patients(manifest: pd.DataFrame, folds: int, seed: int) -> dict[str, Any]:
    """Shares of validation images with a patient in train, and the overlap by the strict key."""
    held_out = manifest[manifest.split == "val"].patient
    trained = set(manifest[manifest.split == "train"].patient)
    keys, shared = strict_key(manifest.patient), shared_numbers(manifest)
    strict = {}
    for name, start in {**SERIES, "all": ""}.items():
        part = shared & keys.str.startswith(start)
        tests = part & (manifest.split == "test")
        strict[name] = {
            "numbers": int(keys[part].nunique()),
            "development_images": int((part & ~tests).sum()),
            "test_images": int(tests.sum()),
        }
    return {
        "validation_shared": float(held_out.isin(trained).mean()),
        "image_split_shared": image_split_shared(manifest, folds, seed),
        "strict": strict,
    }


def image_split_shared(manifest: pd.DataFrame, folds: int, seed: int) -> float:
    """Share of held-out images with a patient in the rest, were train split by image.

    The mean over all folds, each as large as the study's validation set.
    """
    from sklearn.model_selection import StratifiedKFold  # takes long to import

    part = manifest[manifest.split != "test"]
    patients = part.patient.to_numpy()
    shared = np.zeros(len(part), bool)
    for rest, held_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(
        part, part.label
    ):
        shared[held_out] = np.isin(patients[held_out], patients[rest])
    return float(shared.mean())
