"""Progress with an estimate of the time left: a bar in a terminal, log lines in a file."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import track as rich_track

log = logging.getLogger(__name__)
Item = TypeVar("Item")


def start_logging() -> None:
    """Send INFO and above to stderr: rich in a terminal, plain dated lines in a file."""
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(console=Console(stderr=True), show_path=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("matplotlib", "fontTools", "PIL", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def track(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Yield ``items`` while showing how far along they are, about every tenth when logging."""
    if sys.stderr.isatty():
        yield from rich_track(items, description, total=total, console=Console(stderr=True))
        return
    start, reported = time.monotonic(), 0
    for done, item in enumerate(items, 1):
        yield item
        if done * 10 // total > reported:
            reported = done * 10 // total
            left = (time.monotonic() - start) / done * (total - done)
            log.info("%s: %d of %d, %.0f s left", description, done, total, left)
