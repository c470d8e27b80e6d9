"""From predictions to numbers with intervals over patients and training seeds."""

from importlib import import_module
from typing import Any

_MODULES = {
    "auc_interval": "bootstrap",
    "auc_over_seeds": "seeds",
    "auc_difference_over_seeds": "seeds",
    "minimal_detectable_difference": "power",
    "equivalence_power": "power",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Imported when asked for: most jobs need one module of this package only."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
