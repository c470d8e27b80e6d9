"""Device, threads and precision are chosen in one place; a GPU is played by a stand-in."""

import pytest
import torch

from hybridlungvit import runtime
from hybridlungvit.config import Compute
from hybridlungvit.io import StudyError
from hybridlungvit.runtime import autocast, flushing_subnormals, prepare_device, track


@pytest.fixture(autouse=True)
def _restored():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("wanted", "present", "expected"),
    [("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_the_device_follows_config_and_machine(monkeypatch, wanted, present, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    assert prepare_device(Compute(device=wanted)).type == expected


def test_a_missing_gpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StudyError, match=r"compute\.device: 'cuda' .* Use 'auto' or 'cpu'"):
        prepare_device(Compute(device="cuda"))


def test_threads_and_kernels_are_those_of_the_config():
    prepare_device(Compute(threads=1))
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32


def test_subnormals_are_zero_only_where_asked():
    small = torch.tensor([1e-30])
    with pytest.raises(ZeroDivisionError), flushing_subnormals():
        assert (small * 1e-10).item() == 0
        raise ZeroDivisionError
    assert (small * 1e-10).item() > 0


def test_a_gpu_gets_mixed_precision_when_the_config_allows_it(monkeypatch):
    for known, dtype in ((True, torch.bfloat16), (False, torch.float16)):
        calls = []
        monkeypatch.setattr(torch, "autocast", lambda *call, to=calls: to.append(call))
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, known=known, **__: known)
        for wanted in (True, False):
            autocast(torch.device("cuda"), wanted)
        autocast(torch.device("cpu"), True)
        assert calls == [("cuda", dtype, True), ("cuda", None, False), ("cpu", None, False)]


def test_work_that_is_soon_done_says_nothing(caplog, monkeypatch):
    caplog.set_level("INFO")
    assert list(track(range(20), 20, "short")) == list(range(20))
    assert not caplog.records
    monkeypatch.setattr(runtime, "PATIENCE", -1)
    assert list(track(range(20), 20, "long")) == list(range(20))
    assert [record.args[1] for record in caplog.records] == list(range(2, 21, 2))
