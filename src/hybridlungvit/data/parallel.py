"""The same work on many files in several processes."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from hybridlungvit.errors import StudyError
from hybridlungvit.progress import track

Result = TypeVar("Result")
CHUNK = 16


def each_in_processes(
    work: Callable[..., Result], *columns: Any, workers: int, description: str
) -> Iterator[Result]:
    """Yield ``work`` of each row of the columns, in order, while showing progress.

    Raises ``StudyError`` when a process dies, besides what ``work`` raises.
    """
    from cv2 import setNumThreads  # an environment that only reads manifests has no OpenCV

    # A fork would inherit OpenCV's locks without the threads that hold them.
    with ProcessPoolExecutor(workers, get_context("spawn"), setNumThreads, (1,)) as pool:
        try:
            results = pool.map(work, *columns, chunksize=CHUNK)
            yield from track(results, len(columns[0]), description)
        except BrokenProcessPool:
            raise StudyError(
                f"{description}: a process was ended from outside, most likely for lack of memory. "
                "Use fewer processes: --workers, or snakemake --cores."
            ) from None
