"""The manifest: one row per image, with its patient, split and checksum."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from hybridlungvit.config import Data
from hybridlungvit.data.sources import SPLITS, find_images
from hybridlungvit.io import StudyError, read_table, write_table
from hybridlungvit.paths import Layout
from hybridlungvit.runtime import each_in_processes

log = logging.getLogger(__name__)
FACTS = ["sha256", "width", "height", "bytes", "note"]
COLUMNS = ["path", "sha256", "label", "subtype", "patient", "split", *FACTS[1:]]


def build_manifest(root: Path, data: Data, output: Path, workers: int) -> pd.DataFrame:
    """Find, check and split the images below ``root``; write ``output`` as CSV.

    Raises ``StudyError`` for a bad folder, an unusable image, or a patient or an image in both
    train and test.
    """
    from hybridlungvit.data.decode import require_usable, try_inspect  # OpenCV: readers need none

    # Patients of train are unknown there: its own split is at least the one that others report on.
    own_split = data.source == "pneumoniamnist"
    sides = SPLITS if own_split else ("train", "test")
    table = find_images(root, sides, data.classes, data.patients)
    require_patients_apart(table, table.side)
    if data.max_train_images is not None:
        table = keep_whole_patients(table, data.max_train_images, data.split_seed)
    folding = (data.validation_folds, data.split_seed, data.validation_split)
    table["split"] = table.side if own_split else split_validation(table, *folding)
    files = [root / path for path in table.path]
    work = each_in_processes(try_inspect, files, workers=workers, description="checking images")
    results = list(work)
    require_usable(results)
    table = pd.concat([table, pd.DataFrame(results, columns=FACTS)], axis=1)
    require_distinct_images(table)
    for note, paths in table[table.note != ""].groupby("note").path:
        log.warning(
            "%d images are %s (see data/decode.py for what is done), first: %s",
            len(paths), note, paths.iloc[0],
        )  # fmt: skip
    table = table[COLUMNS]
    write_table(output, table)
    counts = table.groupby("split").agg(images=("path", "size"), patients=("patient", "nunique"))
    for split, row in counts.iterrows():
        log.info("%s: %d images of %d patients", split, row.images, row.patients)
    return table


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest written by :func:`build_manifest`."""
    numbers = dict.fromkeys(("label", "width", "height", "bytes"), int)
    table = read_table(path, COLUMNS, dict.fromkeys(COLUMNS, str) | numbers)
    if not (table.split.isin(SPLITS).all() and table.label.isin((0, 1)).all()):
        raise StudyError(f"{path}: damaged (an unknown split or label). Delete it and run again.")
    return table


def read_masks(layout: Layout) -> pd.DataFrame:
    """The manifest with the columns confidence, area and cut (shares of 1) of each image's mask."""
    manifest = read_manifest(layout.manifest)
    masks = read_table(layout.mask_table, ("path", "confidence", "area", "cut"))
    if not masks.path.equals(manifest.path):
        raise StudyError(
            f"{layout.mask_table}: other images than in {layout.manifest}. Run `cache` again."
        )
    return pd.concat([manifest, masks.drop(columns="path")], axis=1)


def unit_of(table: pd.DataFrame) -> str:
    """What intervals resample: "patient", or "image" where no file name tells a patient."""
    return "image" if table.patient.str.startswith("image:").all() else "patient"


def require_patients_apart(table: pd.DataFrame, side: pd.Series) -> None:
    """Raise ``StudyError`` naming a patient that stands on more than one ``side`` (N,)."""
    sides = side.groupby(table.patient).nunique()
    leaked = sides.index[sides > 1]
    if len(leaked):
        group = table[table.patient == leaked[0]]
        one_each = group.index[~side[group.index].duplicated()]
        raise StudyError(
            f"leak: patient {leaked[0]} is in {' and '.join(side[one_each])} "
            f"({', '.join(table.path[one_each])}); {len(leaked)} such patients. Move all images of "
            "a patient to one side and build the manifest again."
        )


def keep_whole_patients(table: pd.DataFrame, limit: int, seed: int) -> pd.DataFrame:
    """Cut train to at most ``limit`` images: whole patients, class proportions kept, seeded."""
    train = table[table.side == "train"]
    kept = [table[table.side != "train"]]
    most = train.groupby("patient").label.transform("max")  # of one with images of both
    for label, group in train.groupby(most):
        share = limit * len(group) // len(train)
        sizes = group.groupby("patient").size()
        order = np.random.default_rng([seed, int(label)]).permutation(len(sizes))
        fits = sizes.iloc[order].cumsum() <= share
        kept.append(group[group.patient.isin(fits.index[fits])])
    return pd.concat(kept).sort_index().reset_index(drop=True)


def split_validation(
    table: pd.DataFrame, folds: int, seed: int, unit: str = "patient"
) -> pd.Series:
    """Name each image's split: one stratified fold of train becomes val.

    Folds keep a patient's images together, unless ``unit`` is "image": then validation leaks.
    """
    split, train = table.side.copy(), table[table.side == "train"]
    patients = train.groupby("label").patient.nunique().reindex((0, 1), fill_value=0)
    if patients.min() < folds:
        raise StudyError(
            f"train has only {patients.min()} patients in one class; data.validation_folds "
            f"= {folds} needs at least that many. Lower it, raise data.max_train_images or add "
            "data."
        )
    # Slow to load, and readers do not need it.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    by_patient = unit == "patient"
    chosen = StratifiedGroupKFold if by_patient else StratifiedKFold
    folding = chosen(folds, shuffle=True, random_state=seed)
    groups = train.patient if by_patient else None
    _, held_out = next(folding.split(train, train.label, groups))
    split[train.index[held_out]] = "val"
    return split


def require_distinct_images(table: pd.DataFrame) -> None:
    """Raise ``StudyError`` for one file in both classes, or in both train and test."""
    for column, meaning in (("label", "in both classes"), ("side", "in train and test")):
        values = table.groupby("sha256")[column].nunique()
        twice = values.index[values > 1]
        if len(twice):
            images = table.path[table.sha256 == twice[0]].tolist()
            raise StudyError(
                f"the same image is {meaning}: {', '.join(images[:4])}; {len(twice)} such images. "
                "Keep it where it belongs."
            )
