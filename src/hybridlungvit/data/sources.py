"""Where the images are, in the Kaggle folder layout, and which patients their names tell."""

import logging
import re
from pathlib import Path, PurePath

import pandas as pd

from hybridlungvit.config import CLASSES, Study
from hybridlungvit.io import StudyError, read_table
from hybridlungvit.paths import Layout

log = logging.getLogger(__name__)
SPLITS = ("train", "val", "test")
SUFFIXES = {".jpeg", ".jpg", ".png"}
UNREAD = {".dcm", ".dicom", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".nii", ".mha"}
DICOM = (
    "is a DICOM file. Convert it first, with the window its header asks for, to 8-bit grey PNG: "
    "for example `dcmj2pnm --write-png +Wi 1 IN.dcm OUT.png` (dcmtk)."
)
# The person number alone is no patient: bacterial and viral images count their people apart.
PNEUMONIA_NAME = re.compile(r"(?P<patient>person\d+_(?P<subtype>bacteria|virus))_\d+")
NORMAL_NAME = re.compile(r"(?P<patient>(?:NORMAL2-)?IM-\d+)-\d+")


def image_root(study: Study, layout: Layout) -> Path:
    """The folder with train/ and test/: the user's, the generated phantoms or the download."""
    if study.data.source == "phantom":
        return layout.phantom
    if study.data_root is not None:
        return Path(study.data_root)
    if study.data.source == "folder":
        raise StudyError(
            "data_root: missing. Add `--config data_root=PATH`, the folder with train/ and test/."
        )
    from hybridlungvit.data.download import image_folder  # with pooch, which few need

    return image_folder(study.data, layout)


def find_images(
    root: Path,
    sides: tuple[str, ...] = ("train", "test"),
    classes: tuple[str, str] = CLASSES,
    patients: str | None = None,
) -> pd.DataFrame:
    """List the images below ``root/{train,test}/<class>``, sorted by path.

    With "val" among the ``sides``, the source's own validation images are listed too. ``patients``
    is the config's key of that name.

    Columns: path (relative to ``root``, POSIX), label (0 normal, 1 pneumonia), subtype (normal,
    bacteria, virus or unknown), patient, side (train, val or test). Raises ``StudyError`` for a
    missing or empty folder, and for a table of patients that lacks images.
    """
    if not root.is_dir():
        raise StudyError(f"{root}: no such folder; expected that with train/ and test/, data_root.")
    rows = []
    for side in sides:
        for label, name in enumerate(classes):
            folder = root / side / name
            if not folder.is_dir():
                above = folder.parent if folder.parent.is_dir() else root
                found = sorted(f"{path.name}/" for path in above.iterdir() if path.is_dir())
                raise StudyError(
                    f"{folder}: no such folder; found {', '.join(found) or 'none'} in {above}. "
                    f"Move the images to {', '.join(sides)}, each with {' and '.join(classes)}, "
                    "or name your two classes in data.classes."
                )
            for file in _images_in(folder):
                path = file.relative_to(root).as_posix()
                patient, subtype = read_patient(path, label)
                if label and classes != CLASSES:  # another question than Kermany's
                    subtype = "unknown"
                rows.append((path, label, subtype, patient, side))
    if "val" not in sides and (root / "val").is_dir():
        count = sum(map(is_image, (root / "val").rglob("*")))
        log.warning(
            "%s holds %d images and is left unused: too few to choose an epoch by. "
            "Validation is held out of train/, by patient.", root / "val", count,
        )  # fmt: skip
    table = pd.DataFrame(rows, columns=["path", "label", "subtype", "patient", "side"])
    if patients is not None:
        table["patient"] = _own_patients(table.path, patients)
    unnamed = int(table.patient.str.startswith("image:").sum())
    if unnamed:
        log.warning(
            "%d of %d file names tell no patient; each such image counts as a patient of its own, "
            "so intervals and splits assume them independent", unnamed, len(table),
        )  # fmt: skip
    return table


def is_image(path: PurePath) -> bool:
    """Whether a file counts as an image: by its suffix, unless it is hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _images_in(folder: Path) -> list[Path]:
    """The image files of a class folder, sorted."""
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise StudyError(f"{folder}: cannot be read ({error.strerror}).") from None
    files = sorted(filter(is_image, entries))
    if not files:
        dicom = any(path.suffix.lower() in (".dcm", ".dicom") for path in entries)
        hint = f"One {DICOM}" if dicom else "Unpack the data set again."
        raise StudyError(f"{folder}: holds no image; expected .jpeg, .jpg or .png files. {hint}")
    for file in files:
        # Control characters, and bytes that are no UTF-8, would not survive the manifest.
        if any(ord(sign) < 32 or 0xD800 <= ord(sign) < 0xE000 for sign in file.name):
            raise StudyError(
                f"{folder}: holds a file named {file.name!a}, with characters that cannot be "
                "printed. Rename it."
            )
    left = [path for path in entries if path.suffix.lower() in UNREAD or path.is_dir()]
    if left := sorted(path.name for path in left if not path.name.startswith(".")):
        raise StudyError(
            f"{folder}: {left[0]} would be left out, of {len(left)} folders and images of other "
            "formats. Convert them to PNG, move images out of folders, or take them away."
        )
    ignored = len(entries) - len(files)
    if ignored:
        log.warning("%s: %d entries are no .jpeg, .jpg or .png; ignored", folder, ignored)
    return files


def read_patient(path: str, label: int) -> tuple[str, str]:
    """Patient key and subtype of an image by its file's name.

    ``person12_virus_34.jpeg`` → (``person12_virus``, ``virus``); ``NORMAL2-IM-0012-0001.jpeg`` →
    (``NORMAL2-IM-0012``, ``normal``). A name of neither form is its own patient, ``image:<path>``:
    files of one name in two folders are two.
    """
    name = Path(path).name
    match = PNEUMONIA_NAME.match(name) or NORMAL_NAME.match(name)
    subtype = (match.groupdict().get("subtype") if match else None) or "unknown"
    return match["patient"] if match else f"image:{path}", subtype if label else "normal"


def _own_patients(paths: pd.Series, patients: str) -> pd.Series:
    """The patient of each image by the config key ``patients``: a CSV or a regular expression."""
    if not patients.lower().endswith(".csv"):
        matches = (re.search(patients, path) for path in paths)
        keys = pd.Series([match[1] if match and match[1] else None for match in matches])
        if keys.isna().any():
            absent = paths[keys.isna()]
            raise StudyError(
                f"data.patients: {patients} finds no patient in {', '.join(absent[:3])}; "
                f"{len(absent)} such images. Widen the expression, or give a CSV."
            )
        return keys
    columns = ["image", "patient"]
    mend = "Give a CSV with the columns image and patient, or leave data.patients out."
    table = read_table(Path(patients), columns, dict.fromkeys(columns, str), mend)[columns]
    table = table.apply(lambda column: column.str.strip())  # a space makes no other patient
    known = table.drop_duplicates().set_index("image").patient
    wrong = known.index[known.index.duplicated() | (known.str.strip() == "")]
    if len(wrong):
        raise StudyError(f"{patients}: {wrong[0]} needs one patient, but has none or several.")
    names = paths.str.rpartition("/")[2]
    by_name = known.reindex(names).set_axis(paths.index)[~names.duplicated(keep=False)]
    keys = known.reindex(paths).set_axis(paths.index).fillna(by_name)
    if keys.isna().any():
        absent = paths[keys.isna()]
        raise StudyError(
            f"{patients}: tells no patient of {', '.join(absent[:3])}; {len(absent)} such images. "
            "Add them, by their path below the data folder or their file name."
        )
    return keys
