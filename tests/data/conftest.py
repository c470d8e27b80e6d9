"""What the tests of images and their lists share."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def folder(phantoms: Path, tmp_path: Path) -> Path:
    """A copy of the phantoms that a test may break."""
    return shutil.copytree(phantoms, tmp_path / "copy")
