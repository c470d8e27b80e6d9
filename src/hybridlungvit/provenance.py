"""Where a result comes from: code, packages, machine."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from hybridlungvit.files import tree_sha256

PACKAGE = Path(__file__).parent
RECORDED = (
    "torch", "torchvision", "timm", "numpy", "opencv-python-headless", "scikit-learn", "scipy",
    "pandas", "pillow", "safetensors",
)  # fmt: skip
# What decides a checkpoint's bits beyond the data, whose hash stands beside it. The config's reader
# is left out: its values are hashed instead.
TRAINING_CODE = (
    "data/augment", "data/batches", "data/cache", "data/decode", "data/masks", "data/mask_template",
    "data/statistics", "model", "temperature", "training",
)  # fmt: skip


def code_files(*parts: str) -> list[Path]:
    """The Python files of stages ("model") or of modules and their helpers ("data/phantom*")."""
    folders = [PACKAGE / part for part in parts if (PACKAGE / part).is_dir()]
    modules = [part for part in parts if not (PACKAGE / part).is_dir()]
    files = {file for folder in folders for file in folder.glob("*.py")}
    return sorted(files.union(*(PACKAGE.glob(f"{module}.py") for module in modules)))


def code_sha256(*parts: str) -> str:
    """Hash of the source of some stages or modules."""
    return tree_sha256(code_files(*parts), PACKAGE)


def code_commit() -> str:
    """The git commit of the source, with ``-dirty`` for uncommitted changes; or ``unknown``."""
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()


def environment_record() -> dict[str, str | dict[str, str]]:
    """Python, platform and the versions of the packages that decide the numbers."""
    packages = {}
    for name in RECORDED:
        try:
            packages[name] = version(name)
        except ModuleNotFoundError:  # conda names its OpenCV package otherwise
            packages[name] = "unknown"
    return {"python": platform.python_version(), "system": platform.system(), "packages": packages}
