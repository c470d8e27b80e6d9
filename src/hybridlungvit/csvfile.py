"""Reading the workflow's tables, and saying plainly which one is damaged."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hybridlungvit.errors import StudyError


def read_table(
    path: Path, columns: Sequence[str], types: dict[str, type] | None = None
) -> pd.DataFrame:
    """Read a CSV; raise ``StudyError`` when it is missing, damaged or lacks one of the columns.

    With ``types`` no field is a missing value: "NA" may be a patient's name, and an empty field is
    an empty text.
    """
    try:
        table = pd.read_csv(path, dtype=types, na_filter=types is None)
    except FileNotFoundError as error:
        raise StudyError(f"{path}: not found. Run the workflow stage that writes it.") from error
    except (OSError, ValueError, OverflowError) as error:  # pandas' own errors are ValueErrors
        raise StudyError(f"{path}: damaged ({error}). Delete it and run again.") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise StudyError(
            f"{path}: lacks the columns {', '.join(missing)}. Delete it and run again."
        )
    return table
