"""TensorBoard events of a training, for those who have tensorboard installed."""

from importlib.util import find_spec
from pathlib import Path


def write_events(
    folder: Path, history: list[dict[str, float]], timing: list[dict[str, float]]
) -> None:
    """Write the last epoch's history and timing as scalars; nothing without tensorboard.

    Events of an epoch that is trained again after an interruption are purged.
    """
    if find_spec("tensorboard") is None:
        return
    from torch.utils.tensorboard import SummaryWriter  # slow to load, and only if it is there

    epoch = len(history)
    with SummaryWriter(str(folder), purge_step=epoch) as writer:
        for group, row in (("history", history[-1]), ("timing", timing[-1])):
            for name, value in row.items():
                if name != "epoch":
                    writer.add_scalar(f"{group}/{name}", value, epoch)
