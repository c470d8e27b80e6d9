"""The workflow killed at random moments, and called twice at once; its results stay the same."""

import random
import subprocess
import time

import psutil
from conftest import checkout, snakemake, snakemake_call

# Everything that computes, from nothing to the numbers of the paper.
CALL = ("paper/generated/tiny/macros.tex", "--configfile", "tiny.yaml")
JOBS, KILLS = 21, ["snakemake", "job", "job"]
RESULTS = ("manifest.csv", "masks.csv", "predictions/*/*.csv", "metrics/*.json", "gradcam/*.json")
RESULTS += ("runs/*/*/model.safetensors", "runs/*/*/history.csv")


def start(folder, *arguments):
    with (folder / "snakemake.log").open("a") as log:
        return subprocess.Popen(**snakemake_call(folder, *arguments), stdout=log, stderr=log)


def outcome(folder):
    root = folder / "results" / "tiny"
    files = [file for pattern in RESULTS for file in root.glob(pattern)]
    files.append(folder / CALL[0])
    return {file.relative_to(folder): file.read_bytes() for file in files}


def started_jobs(folder):
    return len(list((folder / "results" / "tiny" / "logs").glob("**/*.log")))


def jobs_of(process):
    """The commands a workflow is running."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if child.cmdline()[1:3] == ["-m", "hybridlungvit"]:
                found.append(child)
        except psutil.Error:  # it has ended meanwhile
            continue
    return found


def kill(process, folder):
    """Kill snakemake and, as docs/studies.md asks, what it left behind; then unlock."""
    left = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for child in left:
        if child.is_running():
            child.kill()
    psutil.wait_procs(left)
    assert snakemake(folder, "--unlock", "--configfile", "tiny.yaml").returncode == 0


def test_a_second_call_is_refused_and_the_file_of_a_killed_job_is_made_again(tmp_path):
    """A kill may fall between the writing of a file and snakemake's note that its job ended."""
    folder = checkout(tmp_path)
    with (folder / "Snakefile").open("a") as stream:
        stream.write(
            '\nrule halting:\n    output: "halted"\n    shell: "touch {output}; sleep 3600"\n'
        )
    call = ("halted", "--configfile", "tiny.yaml")
    process = start(folder, *call)
    while process.poll() is None and not (folder / "halted").exists():
        time.sleep(0.05)
    assert process.poll() is None, (folder / "snakemake.log").read_text()
    second = snakemake(folder, *call)
    assert second.returncode != 0
    assert "Directory cannot be locked" in second.stdout + second.stderr
    kill(process, folder)
    planned = snakemake(folder, "-n", *call)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "rule halting:" in planned.stdout + planned.stderr


def kill_something(folder, kind, goal, moments):
    """Start the workflow and kill it, or one of its jobs, some time after ``goal`` jobs began."""
    process = start(folder, *CALL)
    while process.poll() is None and started_jobs(folder) < goal:
        time.sleep(0.05)
    time.sleep(moments.uniform(0, 2))
    while process.poll() is None and not (jobs := jobs_of(process)):
        time.sleep(0.01)
    assert process.poll() is None, (folder / "snakemake.log").read_text()
    if kind == "job":
        moments.choice(jobs).kill()
        assert process.wait(3600) == 1
    else:
        kill(process, folder)


def test_a_workflow_killed_three_times_ends_as_an_undisturbed_one(finished, tmp_path):
    folder, moments = checkout(tmp_path, origin=finished), random.Random(3)
    kinds = moments.sample(KILLS, len(KILLS))
    goals = sorted(moments.sample(range(JOBS - 4), len(KILLS)))
    for kind, goal in zip(kinds, goals, strict=True):
        kill_something(folder, kind, goal, moments)
    done = snakemake(folder, *CALL)
    assert done.returncode == 0, done.stdout + done.stderr
    expected, ended = outcome(finished), outcome(folder)
    assert sorted(ended) == sorted(expected)
    assert [name for name in expected if ended[name] != expected[name]] == []
