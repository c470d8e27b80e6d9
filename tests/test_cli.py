"""The command line: exit statuses, and one message instead of a traceback."""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from unittest.mock import Mock

import pytest
import yaml
from conftest import beside

from hybridlungvit import cli
from hybridlungvit.io import StudyError


def start(folder, *arguments, before=None):
    command = [sys.executable, "-m", "hybridlungvit", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, stdout=pipe, stderr=pipe, text=True, preexec_fn=before
    )


def run(monkeypatch, *arguments):
    """The exit status of a command in this process, where a traceback would be an exception."""
    monkeypatch.setattr("sys.argv", ["hybridlungvit", *arguments])
    monkeypatch.setattr(cli, "start_logging", lambda: None)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_training_says_how_to_resume_and_fails(tiny, cached, tmp_path, sent):
    tiny["training"] |= {"epochs": 500, "patience": 500}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tiny, sort_keys=False))
    beside(cached, tmp_path / "results")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs of a shell's "&" ignore it
    job = start(tmp_path, "train", "--config", "study.yaml", "--variant", "no_seg", "--seed", "0")
    work = tmp_path / "results" / "tiny" / "work"
    while job.poll() is None and not list(work.glob("no_seg/seed-0/checkpoint.pt")):
        time.sleep(0.1)
    os.kill(job.pid, sent)
    _, errors = job.communicate()
    assert job.returncode == 130
    assert "run the same command again" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--config", "nowhere.yaml", "--variant", "a", "--seed", "0"], "nowhere.yaml"),
        (["train", "--config", "study.yaml", "--variant", "nope", "--seed", "0"], "no variant"),
        (["train", "--config", "study.yaml", "--variant", "no_seg", "--seed", "7"], "no seed"),
        (["manifest", "--config", "study.yaml"], "phantom: no such folder"),
        (["fly"], "No such command"),
        (["check-config", "study.yaml", "code.yaml"], "code.yaml: __use_yte__ has Snakemake run"),
        (["adopt", "--config", "study.yaml", "code.yaml"], "code.yaml: __use_yte__ has Snakemake"),
        (["adopt", "--config", "study.yaml", "--configfile=code.yaml"], "code.yaml: __use_yte__ h"),
        (["masks", "--data", ".", "--annotations", "no.csv", "--out", "."], "no.csv: not found"),
    ],
)
def test_bad_calls_fail_with_one_message(
    tiny, tmp_path, monkeypatch, capsys, caplog, arguments, expected
):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tiny, sort_keys=False))
    (tmp_path / "code.yaml").write_text("__use_yte__: true\ntitle: ?1 + 1\n")
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) in (1, 2)
    assert expected in caplog.text + capsys.readouterr().err


@pytest.mark.parametrize("command", ["features", "train", "score", "explain"])
def test_what_computes_with_a_model_claims_a_gpu(tiny, tmp_path, monkeypatch, caplog, command):
    def claim(compute):
        raise StudyError("claimed")

    monkeypatch.setattr("hybridlungvit.gpus.claim_gpu", claim)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tiny))
    monkeypatch.chdir(tmp_path)
    seed = ["--seed", "0"] if command == "train" else []
    assert run(monkeypatch, command, "--config", "study.yaml", "--variant", "no_seg", *seed) == 1
    assert "claimed" in caplog.text


def obey_permissions():
    """Take from root the right to pass over permissions, as no one else has it."""
    drop, override, read_search = 24, 1, 2  # PR_CAPBSET_DROP, CAP_DAC_*; see capabilities(7)
    if os.geteuid() == 0:
        for capability in (override, read_search):
            if ctypes.CDLL(None).prctl(drop, capability, 0, 0, 0):
                raise OSError("capabilities cannot be dropped here")


def fill_disk():
    """No file grows beyond two kilobytes, like on a disk with no more room."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


@pytest.fixture
def own_images(tiny, phantoms, tmp_path):
    """A folder with a study on a copy of the phantoms, and where its results go."""
    shutil.copytree(phantoms, tmp_path / "images")
    del tiny["data"]["phantom"]
    tiny |= {"data": tiny["data"] | {"source": "folder"}, "data_root": "images"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tiny, sort_keys=False))
    results = tmp_path / "results" / "tiny"
    results.mkdir(parents=True)
    return tmp_path, results


def failed(folder, *arguments, before=None):
    """The one message of a command that fails: no traceback, and on the screen nothing else."""
    job = start(folder, *arguments, before=before)
    output, errors = job.communicate()
    assert (job.returncode, output) == (1, ""), errors
    assert "Traceback" not in errors
    return " ".join(errors.split())


@pytest.mark.skipif(sys.platform != "linux", reason="drops a capability that Linux has")
@pytest.mark.parametrize(
    ("locked", "mode", "named"),
    [
        ("images/test/PNEUMONIA", 0o000, "images/test/PNEUMONIA: cannot be read"),
        ("results/tiny", 0o555, "results/tiny/manifest.csv: cannot be written"),
    ],
)
def test_what_may_not_be_read_or_written_is_named(own_images, locked, mode, named):
    folder, results = own_images
    (folder / locked).chmod(mode)
    try:
        text = failed(folder, "manifest", "--config", "study.yaml", before=obey_permissions)
    finally:
        (folder / locked).chmod(0o755)
    assert f"{named} (Permission denied)" in text
    assert not list(results.iterdir())


def test_a_disk_that_fills_up_is_told_and_leaves_nothing(own_images, monkeypatch):
    folder, results = own_images
    monkeypatch.chdir(folder)
    assert run(monkeypatch, "manifest", "--config", "study.yaml") == 0
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    text = failed(folder, "cache", "--config", "study.yaml", before=fill_disk)
    assert "cannot be written (File too large). Free space" in text
    assert {p: p.read_bytes() for p in results.rglob("*") if p.is_file()} == before


UNUSED = ["sklearn", "scipy.stats", "scipy.optimize", "matplotlib", "pytorch_grad_cam"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modules", "unused"),
    [
        ("training.loop evaluation.score", UNUSED),
        ("predict", ["sklearn", "scipy.stats", "matplotlib", "pytorch_grad_cam"]),
        ("evaluation.evaluate evaluation.compare", [*UNUSED, "torch", "cv2"]),
        ("paper.macros paper.tables companions.cards", [*UNUSED, "torch", "cv2"]),
    ],
)
def test_a_job_starts_without_packages_it_does_not_use(modules, unused):
    imports = "".join(f"import hybridlungvit.{name}\n" for name in modules.split())
    code = f"import sys\n{imports}print(*(name for name in sys.argv[1:] if name in sys.modules))"
    command = [sys.executable, "-c", code, *unused]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


WAYS_OUT = ["batch_size", "image_size", "token_grid", "d_model", "freeze_epochs", "checkpoint"]


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (MemoryError("Unable to allocate 9 GiB"), WAYS_OUT),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."), WAYS_OUT),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9"), WAYS_OUT),
        (PermissionError(13, "Permission denied", "a/b.csv"), ["a/b.csv: Permission denied"]),
        (EOFError(), ["ends too early"]),  # no interruption, for which Typer takes it
    ],
)
def test_what_is_no_interruption_ends_in_one_message_with_ways_out(
    monkeypatch, caplog, raised, told
):
    monkeypatch.setattr(cli, "reference", Mock(side_effect=raised))
    assert run(monkeypatch, "keys") == 1
    assert all(words in caplog.text for words in told)


def test_windows_is_refused_in_one_sentence(monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        assert run(patch, "phantom") == 1
    assert "WSL" in caplog.text
