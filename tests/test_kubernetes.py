"""The Kubernetes profile with a stand-in for kubectl, which runs each job's command right here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import TINY, checkout

KUBECTL = f"""#!{sys.executable}
import os, pathlib, subprocess, sys
import yaml
jobs = pathlib.Path(os.environ["STAND_IN"])
assert sys.argv[1:3] == ["--namespace", "default"]
if sys.argv[3] == "create":
    job = yaml.safe_load(sys.stdin)
    name = job["metadata"]["generateName"] + str(len(list(jobs.iterdir())))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    with (jobs / f"{{name}}.log").open("w") as log:
        done = subprocess.run(container["command"], stdout=log, stderr=log, cwd="/")
    job["end"] = "SuccessCriteriaMet Complete" if done.returncode == 0 else "Failed"
    (jobs / f"{{name}}.yaml").write_text(yaml.safe_dump(job))
    print(name, end="")
elif sys.argv[3] == "get":
    print(yaml.safe_load((jobs / f"{{sys.argv[5]}}.yaml").read_text())["end"])
"""


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """A folder for the stand-in's jobs, and the profile's own settings."""
    jobs, tool = tmp_path / "jobs", tmp_path / "bin" / "kubectl"
    jobs.mkdir()
    tool.parent.mkdir()
    tool.write_text(KUBECTL)
    tool.chmod(0o755)
    path = f"{tool.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    settings = {"STAND_IN": jobs, "K8S_IMAGE": "registry/image:1", "K8S_CLAIM": "study"}
    for name, value in (settings | {"K8S_MOUNT": tmp_path, "PATH": path}).items():
        monkeypatch.setenv(name, str(value))
    return jobs


def submit(folder, *arguments):
    profile = ("--profile", "workflow/profiles/kubernetes", "--seconds-between-status-checks", "1")
    call = [sys.executable, "-m", "snakemake", *arguments, *profile, "--configfile", "tiny.yaml"]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_jobs_ask_for_what_their_rule_and_config_say(cluster, tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    checkout(folder)
    compute = TINY["compute"] | {"device": "auto", "memory_mb": 900, "runtime_minutes": 7}
    study = TINY | {"seeds": [0], "compute": compute}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    target = "results/tiny/runs/plain_deit/seed-0/run.json"
    done = submit(folder, target)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = {
        job["metadata"]["generateName"].split("-")[1]: job["spec"]
        for job in (yaml.safe_load(file.read_text()) for file in cluster.glob("*.yaml"))
    }
    assert sorted(jobs) == ["cache", "leaks", "manifest", "phantom", "train"]
    (training,) = jobs["train"]["template"]["spec"]["containers"]
    assert jobs["train"]["activeDeadlineSeconds"] == 7 * 60
    assert training["resources"]["requests"] == {
        "cpu": "1",
        "memory": "900M",
        "nvidia.com/gpu": "1",
    }
    (leaks,) = jobs["leaks"]["template"]["spec"]["containers"]
    assert leaks["resources"]["requests"] == {"cpu": "1", "memory": "2000M", "nvidia.com/gpu": "0"}

    (folder / target).unlink()
    study["training"] = TINY["training"] | {"learning_rate": 1e30}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    done = submit(folder, target)
    assert done.returncode != 0
    assert "Error in rule train" in done.stdout + done.stderr
    assert "Lower training.learning_rate" in done.stdout + done.stderr  # the job's own log
