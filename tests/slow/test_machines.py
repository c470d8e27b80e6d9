"""The same text from the same predictions on other machines, as far as one machine can be another.

OpenBLAS and numpy take other kernels when told that the processor is an older one; so sums run in
another order, with other vector widths and numbers of threads.
"""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import TINY

from hybridlungvit.paths import Layout

UMATH = np._core._multiarray_umath
WIDE = [name for name in UMATH.__cpu_dispatch__ if name == "X86_V4" or name.startswith("AVX512")]
HAS = {name for name, present in UMATH.__cpu_features__.items() if present}
MACHINES = {
    "Nehalem": (1, UMATH.__cpu_dispatch__, set()),
    "Haswell": (2, WIDE, {"AVX2"}),
}
"""By kernel of OpenBLAS: threads, what numpy does without, and what the processor must have.

`.ci/machines` makes the published papers on these and on others.
"""
LAYOUT = Layout("tiny")
STAGES = [*(f"metrics --variant {variant}" for variant in TINY["variants"]), "compare",
          "audit-results", "text"]  # fmt: skip
RUN = """
import sys
from hybridlungvit import io
from hybridlungvit.cli import app
if sys.argv[1] == "unrounded":
    io.rounded = lambda value: value
for stage in sys.argv[2:]:
    app(stage.split(), standalone_mode=False)
"""


def on(machine):
    """The environment of a machine; skips where this one cannot pretend to be it."""
    if "X86_V2" not in HAS and "SSE41" not in HAS:
        pytest.skip("OpenBLAS' kernels are named here for x86-64")
    threads, absent, needed = MACHINES[machine]
    if needed - HAS:
        pytest.skip(f"the processor lacks {', '.join(needed)}")
    present = " ".join(name for name in absent if name in HAS)
    counts = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), str(threads))
    return counts | {"OPENBLAS_CORETYPE": machine, "NPY_DISABLE_CPU_FEATURES": present}


def artefacts(folder):
    """The text that a study's predictions decide, by path."""
    paths = [*folder.glob("results/tiny/metrics/*.json"), folder / LAYOUT.audit_results]
    generated = folder / LAYOUT.generated
    paths += [*generated.glob("*.tex"), *generated.glob("tables/*.tex")]
    paths += generated.glob("companions/*")
    return {path.relative_to(folder): path.read_bytes() for path in paths}


@pytest.fixture
def computed(finished_copy, tmp_path):
    """Computes the artefacts of the finished study again, as another machine would."""
    shutil.rmtree(LAYOUT.metrics("no_seg").parent)

    def compute(machine, writer="rounded", stages=STAGES):
        environment = os.environ | on(machine) | {"HYBRIDLUNGVIT_CONFIG": "tiny.yaml"}
        command = [sys.executable, "-c", RUN, writer, *stages]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return artefacts(tmp_path)

    return compute


@pytest.mark.parametrize("machine", MACHINES)
def test_another_machine_writes_the_same_bytes(finished, computed, machine):
    expected = artefacts(finished)
    assert len(expected) > 30
    found = computed(machine)
    assert found.keys() == expected.keys()
    assert [path for path in expected if found[path] != expected[path]] == []


def test_without_rounding_two_machines_differ(computed):
    """Otherwise the test above would say nothing."""
    stages = [stage for stage in STAGES if stage.startswith("metrics")]
    assert computed("Nehalem", "unrounded", stages) != computed("Haswell", "unrounded", stages)
