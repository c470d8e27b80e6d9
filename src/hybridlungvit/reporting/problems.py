"""What a check of the paper found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    where: str
    """File, and line or key, to look at."""
    what: str
    """What is wrong and how to mend it."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"
