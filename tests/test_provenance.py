"""What identifies the code behind a result: what it means, not how it is written."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, replace

from hybridlungvit import provenance
from hybridlungvit.io import rounded
from hybridlungvit.provenance import code_sha256, committed_record

PACKAGE = REPOSITORY / "src" / "hybridlungvit"


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A copy of the package that a test may edit."""
    package = tmp_path / "hybridlungvit"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", package)
    provenance._module.cache_clear()
    yield package
    provenance._module.cache_clear()


def edited(source, module, old, new):
    """Hashes before and after an edit, by sub-command."""
    commands = ("manifest", "train", "score", "metrics", "figures")
    before = {command: code_sha256(command) for command in commands}
    replace(source / module, old, new)
    provenance._module.cache_clear()
    return {command for command in commands if code_sha256(command) != before[command]}


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("model/tokens.py", "def ", "# A comment.\n\n\ndef "),
        ("model/tokens.py", '"""', '"""Another first sentence. '),
        ("config.py", "epochs: Positive = 20\n", "epochs: Positive = (\n        20\n    )\n"),
    ],
)
def test_comments_docstrings_and_layout_change_nothing(source, module, old, new):
    assert edited(source, module, old, new) == set()


BITS = {"train", "score"}


@pytest.mark.parametrize(
    ("module", "old", "new", "least", "most"),
    [
        ("config.py", "epoch < self.freeze_epochs", "epoch <= self.freeze_epochs", BITS, None),
        ("runtime.py", "wanted and device", "not wanted and device", BITS, None),
        ("model/tokens.py", "1", "2", BITS, None),
        ("paper/style.py", "#0072B2", "#0072B3", {"figures"}, {"figures"}),
        ("cli.py", "run(study, variant, seed, layout)", "pass", {"train"}, {"train"}),
    ],
)
def test_what_a_piece_of_code_may_change_has_another_hash(source, module, old, new, least, most):
    changed = edited(source, module, old, new)
    assert least <= changed
    assert most is None or changed <= most


def test_a_script_is_followed_like_a_command(source):
    script = REPOSITORY / "benchmarks" / "masks.py"
    before = code_sha256(script)
    edited(source, "masks/fit.py", "best == 0", "best == 1")
    assert code_sha256(script) != before


PYTHONS = [shutil.which(f"python3.{minor}") for minor in (11, 12, 13)]
ASK = """
import sys
sys.path.insert(0, sys.argv[1])
from hybridlungvit.provenance import code_sha256
print(*(code_sha256(name) for name in ("train", "text", "figures")))
"""


def test_every_supported_python_gives_the_same_hash():
    answers = {}
    for program in filter(None, [sys.executable, *PYTHONS]):
        command = [program, "-c", ASK, str(REPOSITORY / "src")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:  # a stub of a version manager may answer for nothing
            answers[program] = done.stdout
    assert sys.executable in answers
    assert len(set(answers.values())) == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1 + 0.2, 0.3),
        (1 / 3, 0.333333333),
        (1234567.891234, 1234567.89),
        (3e-17, 0.0),
        (-3e-17, 0.0),
        (1.23456789012e-5, 0.000012345679),
        ({"a": [1, True, None, "x", (2 / 3,)]}, {"a": [1, True, None, "x", [0.666666667]]}),
    ],
)
def test_records_keep_nine_digits_and_no_noise(value, expected):
    assert rounded(value) == expected
    assert rounded(rounded(value)) == rounded(value)
    assert repr(rounded(value)) == repr(expected)


def test_no_commit_and_no_git_is_no_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert committed_record(Path("record.json")) is None
    monkeypatch.setenv("PATH", "")
    assert committed_record(Path("record.json")) is None
