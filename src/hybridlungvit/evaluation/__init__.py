"""From predictions to numbers with intervals over patients and training seeds."""

from importlib import import_module
from typing import Any

__all__ = ["auc_difference_over_seeds", "auc_interval", "auc_over_seeds"]


def __getattr__(name: str) -> Any:
    """Imported when asked for: most jobs need other modules of this package."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.seeds"), name)
