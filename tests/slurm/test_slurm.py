"""The workflow on a real Slurm of one node: `make test-slurm`.

With SLURM_STUDY, the path of a config, that study goes through sbatch too, to its PDF.
"""

import os
import re
import shutil
import subprocess
import sys
import time

import psutil
import pytest
import yaml
from conftest import REPOSITORY, TINY, checkout

from hybridlungvit.config import load_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "HYBRIDLUNGVIT_TEST_SLURM" not in os.environ,
        reason="needs tests/slurm/cluster.sh, which `make test-slurm` calls",
    ),
]
PARTITION, MEMORY, MINUTES = "short", 900, 7  # none of them a default
SMALL = TINY | {
    "seeds": [0],
    "variants": {name: TINY["variants"][name] for name in ("no_seg", "plain_deit")},
    "training": TINY["training"] | {"epochs": 20, "patience": 20},
    # auto: asks Slurm for a GPU, and computes without on this machine
    "compute": TINY["compute"]
    | {"device": "auto", "memory_mb": MEMORY, "runtime_minutes": MINUTES},
}
ON_GPU = ("train", "score_", "explain_")


def command(config, *arguments):
    return [
        *(sys.executable, "-m", "snakemake", "--profile", "workflow/profiles/slurm"),
        *("--configfile", config, "--default-resources", f"slurm_partition={PARTITION}"),
        *("mem_mb=2000", "runtime=60"),
        # This machine may have two processors, and its controller nothing else to do.
        *("--max-threads", "2", "--slurm-init-seconds-before-status-checks", "2", *arguments),
    ]


def submit(folder, config, *arguments):
    call = command(config, *arguments)
    return subprocess.run(call, cwd=folder, capture_output=True, text=True)


def slurm_jobs():
    """Every job of the cluster so far, as scontrol shows it; Comment names the rule."""
    text = subprocess.run(
        ["scontrol", "show", "jobs", "--oneliner"], capture_output=True, text=True, check=True
    ).stdout
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in text.splitlines() if line]


def jobs_of(rule):
    return [job for job in slurm_jobs() if re.match(rf"rule_{rule}(_wildcards|$)", job["Comment"])]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A checkout whose small study has gone through sbatch, up to the comparisons."""
    folder = checkout(tmp_path_factory.mktemp("slurm"))
    (folder / "study.yaml").write_text(yaml.safe_dump(SMALL, sort_keys=False))
    done = submit(folder, "study.yaml", "results/tiny/metrics/comparisons.json")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def check_jobs(jobs, study):
    """Each job ended well, in the partition asked for, with a GPU if its rule computes on one."""
    for job in jobs:
        rule = re.match(r"rule_(.+?)(_wildcards|$)", job["Comment"])[1]
        wants_gpu = rule.startswith(ON_GPU) and study.compute.device != "cpu"
        assert job.get("TresPerJob") == ("gres:gpu:1" if wants_gpu else None), rule
        assert (job["Partition"], job["JobState"]) == (PARTITION, "COMPLETED"), rule


def test_every_rule_is_a_job_with_its_own_resources(finished):
    jobs = slurm_jobs()
    assert len(jobs) == len(list((finished / "results" / "tiny" / "logs").glob("**/*.log"))) == 9
    check_jobs(jobs, load_study(finished / "study.yaml"))
    assert len(jobs_of("train")) == 2
    for job in jobs_of("train"):
        assert (job["MinMemoryNode"], job["TimeLimit"]) == (f"{MEMORY}M", f"00:0{MINUTES}:00")
        assert job["NumCPUs"] == "1"
    (compare,) = jobs_of("compare")
    assert (compare["MinMemoryNode"], compare["TimeLimit"]) == ("2000M", "01:00:00")


@pytest.mark.skipif(not os.environ.get("SLURM_STUDY"), reason="no CONFIG was given")
def test_a_given_study_goes_through_sbatch_to_its_pdf(tmp_path):
    before = len(slurm_jobs())
    folder = checkout(tmp_path)
    shutil.copy(REPOSITORY / os.environ["SLURM_STUDY"], folder / "study.yaml")
    done = submit(folder, "study.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    study = load_study(folder / "study.yaml")
    assert (folder / "paper" / f"{study.study}.pdf").stat().st_size > 50_000
    jobs = sorted(slurm_jobs(), key=lambda job: int(job["JobId"]))[before:]
    assert len(jobs) == len(list((folder / "results" / study.study / "logs").glob("**/*.log")))
    check_jobs(jobs, study)


RUN = "results/tiny/runs/no_seg/seed-0"


def copy_of(finished, folder, **changes):
    """A copy of the finished checkout with other values in one section of its config."""
    shutil.copytree(finished, folder)
    study = SMALL | {name: SMALL[name] | values for name, values in changes.items()}
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return folder


def training_process(folder):
    """The training of the folder, once it has written a checkpoint."""
    work = folder / "results" / "tiny" / "work"
    end = time.monotonic() + 600
    while not list(work.glob("no_seg/seed-0/checkpoint.pt")):
        assert time.monotonic() < end, "no checkpoint"
        time.sleep(0.02)
    for process in psutil.process_iter(["cmdline", "cwd"]):
        call = process.info["cmdline"] or []
        if call[1:4] == ["-m", "hybridlungvit", "train"] and process.info["cwd"] == str(folder):
            return process
    raise AssertionError("the training ended before it could be slowed down")


def test_a_training_stopped_by_its_time_limit_resumes_to_the_same_bits(finished, tmp_path):
    own = [job for job in jobs_of("train") if job["Comment"].endswith("no_seg_0")]
    job = min(own, key=lambda job: int(job["JobId"]))  # a given study's come later
    hours, minutes, _ = map(int, job["RunTime"].split(":"))
    enough = 60 * hours + minutes + 1  # one minute, unless this machine is slow
    folder = copy_of(finished, tmp_path / "stopped", compute={"runtime_minutes": enough})
    shutil.rmtree(folder / RUN)
    with (folder / "first.log").open("w") as log:
        first = subprocess.Popen(
            command("study.yaml", f"{RUN}/run.json"), cwd=folder, stdout=log, stderr=log
        )
        training_process(folder).suspend()  # from here on, it cannot end in time
        assert first.wait(3600) != 0
    stopped = max(jobs_of("train"), key=lambda job: int(job["JobId"]))
    assert stopped["JobState"] == "TIMEOUT"
    assert "SLURM status is: 'TIMEOUT'" in (folder / "first.log").read_text()
    assert not (folder / RUN).exists()

    for _ in range(5):  # a slow machine may need more than one other try
        again = submit(folder, "study.yaml", f"{RUN}/run.json")
        if again.returncode == 0:
            break
    assert again.returncode == 0, again.stdout + again.stderr
    log = (folder / "results" / "tiny" / "logs" / "train" / "no_seg-seed-0.log").read_text()
    assert "resuming no_seg, seed 0, after epoch" in log
    for name in ("model.safetensors", "history.csv"):
        assert (folder / RUN / name).read_bytes() == (finished / RUN / name).read_bytes()


def test_a_failing_job_is_reported_with_its_log(finished, tmp_path):
    folder = copy_of(finished, tmp_path / "failing", training={"learning_rate": 1e30})
    done = submit(folder, "study.yaml", f"{RUN}/run.json")
    message = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Error in rule train" in message
    assert "SLURM status is: 'FAILED'" in message
    assert "Logfile results/tiny/logs/train/no_seg-seed-0.log" in message
    assert "Lower training.learning_rate" in message  # the log's own words
