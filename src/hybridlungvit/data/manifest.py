"""The manifest: one row per image, with its patient, split and checksum."""

import hashlib
import io
import logging
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from hybridlungvit.config import Data
from hybridlungvit.data.sources import find_images
from hybridlungvit.errors import StudyError
from hybridlungvit.files import write_text
from hybridlungvit.progress import track

log = logging.getLogger(__name__)
COLUMNS = ["path", "sha256", "label", "subtype", "patient", "split", "width", "height", "bytes"]
SPLITS = ("train", "val", "test")


def build_manifest(root: Path, data: Data, output: Path, workers: int) -> pd.DataFrame:
    """Find, check and split the images below ``root``; write ``output`` as CSV.

    Raises ``StudyError`` for a bad folder, an unreadable image or a patient in both train and test.
    """
    table = find_images(root)
    require_disjoint_patients(table, table.side)
    if data.max_train_images is not None:
        table = keep_whole_patients(table, data.max_train_images, data.split_seed)
    table["split"] = split_validation(
        table, data.validation_folds, data.split_seed, data.validation_split
    )
    facts = _inspect_all(root, table.path, workers)
    table = pd.concat([table, facts], axis=1)[COLUMNS]
    write_text(output, table.to_csv(index=False, lineterminator="\n"))
    counts = table.groupby("split").agg(images=("path", "size"), patients=("patient", "nunique"))
    for split, row in counts.iterrows():
        log.info("%s: %d images of %d patients", split, row.images, row.patients)
    return table


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest written by :func:`build_manifest`."""
    try:
        table = pd.read_csv(path, dtype={"patient": str, "path": str})
    except FileNotFoundError as error:
        raise StudyError(f"{path}: not found. Run `hybridlungvit manifest` first.") from error
    if list(table.columns) != COLUMNS:
        raise StudyError(f"{path}: expected the columns {', '.join(COLUMNS)}. Build it again.")
    return table


def require_disjoint_patients(table: pd.DataFrame, side: pd.Series) -> None:
    """Raise ``StudyError`` naming the patients that stand on more than one side."""
    sides = side.groupby(table.patient).nunique()
    leaked = sorted(sides.index[sides > 1])
    if leaked:
        images = table.path[table.patient == leaked[0]].tolist()
        raise StudyError(
            f"patient {leaked[0]} is in train and test ({', '.join(images[:4])}); "
            f"{len(leaked)} such patients. Move all images of a patient to one side."
        )


def keep_whole_patients(table: pd.DataFrame, limit: int, seed: int) -> pd.DataFrame:
    """Cut train to at most ``limit`` images: whole patients, class proportions kept, seeded."""
    train = table[table.side == "train"]
    kept = [table[table.side == "test"]]
    for label, group in train.groupby("label"):
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
    split = table.side.copy()
    train = table.index[table.side == "train"]
    patients = table.loc[train].groupby("label").patient.nunique()
    if patients.min() < folds:
        raise StudyError(
            f"train has only {patients.min()} patients in one class; data.validation_folds "
            f"= {folds} needs at least that many. Lower it or add data."
        )
    # Slow to load, and readers do not need it.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    chosen = StratifiedGroupKFold if unit == "patient" else StratifiedKFold
    folding = chosen(folds, shuffle=True, random_state=seed)
    part = table.loc[train]
    groups = part.patient if unit == "patient" else None
    _, held_out = next(folding.split(part, part.label, groups))
    split[train[held_out]] = "val"
    return split


def _inspect_all(root: Path, paths: pd.Series, workers: int) -> pd.DataFrame:
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        results = pool.map(partial(inspect_image, root), paths, chunksize=16)
        rows = list(track(results, len(paths), "checking images"))
    return pd.DataFrame(rows, columns=["sha256", "width", "height", "bytes"], index=paths.index)


def inspect_image(root: Path, path: str) -> tuple[str, int, int, int]:
    """SHA-256, width, height and size in bytes; decodes everything, to find truncated files."""
    try:
        content = (root / path).read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "no image format known" if isinstance(error, UnidentifiedImageError) else error
        raise StudyError(
            f"{root / path}: cannot be read as an image ({reason}). "
            "Fetch it again or remove it from the folder."
        ) from None
    return hashlib.sha256(content).hexdigest(), width, height, len(content)
