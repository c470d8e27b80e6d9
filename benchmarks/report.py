"""What every benchmark returns, and the one table that shows it.

Torch is imported by what needs it: processes that a benchmark starts would load it, too.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hybridlungvit.io import write_json

REPEATS = 5


@dataclass(frozen=True)
class Measure:
    """A ratio between two things timed in the same run."""

    name: str
    value: float
    target: float
    at_least: bool
    """Whether the value should reach the target or stay below it."""
    bound: float | None = None
    """What the operation count allows, where that can be computed."""
    note: str = ""

    @property
    def met(self) -> bool:
        return self.value >= self.target if self.at_least else self.value <= self.target


def timed_rounds(
    actions: Mapping[str, Callable[[], object]], repeats: int = REPEATS
) -> dict[str, list[float]]:
    """Seconds of each action in each round, after one round unmeasured.

    A round runs every action once, so that what disturbs the machine disturbs all alike.
    """
    for action in actions.values():
        action()
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(above: list[float], below: list[float]) -> float:
    """The median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def arguments(description: str) -> argparse.ArgumentParser:
    """The options every benchmark has; ``description`` is its docstring."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser


def show(title: str, measures: list[Measure], output: Path | None = None) -> None:
    """Print the table, and write it as JSON with the machine's name when asked to."""
    table = Table(title=title)
    for column in ("measure", "value", "target", "bound", "met", "note"):
        table.add_column(column, overflow="fold")
    for m in measures:
        sign = "≥" if m.at_least else "≤"
        bound = "" if m.bound is None else f"{m.bound:.3g}"
        met = "yes" if m.met else "no"
        table.add_row(m.name, f"{m.value:.3g}", f"{sign} {m.target:g}", bound, met, m.note)
    Console(width=140).print(table)
    if output is not None:
        import torch

        from hybridlungvit.runtime import device_name

        machine = {
            "processor": device_name(torch.device("cpu")),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        rows = [asdict(m) | {"met": m.met} for m in measures]
        write_json(output, {"machine": machine, "measures": rows})
