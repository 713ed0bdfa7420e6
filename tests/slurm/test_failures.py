"""What goes wrong on a cluster, done for real to a job of the finished demo study: every run ends with the same bytes."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from slurm.cluster import SCRIPT, Job, Run, slurm, training_process, wait_for

NETWORK = "sound/lite0_frozen/corrected"
WEIGHTS = f"results/demo/training/{NETWORK}/0/model.safetensors"
OUTPUTS = ["model.safetensors", "history.csv", "card.json"]
RESUMED = re.compile(r"going on from the state of an interrupted run: \S+/training\.pt$", re.MULTILINE)
# The profile's line for a cluster without GPUs: the job then may run on any node.
ANY_NODE = ["--set-resources", "train_fold:gpu=0"]


@pytest.fixture
def before(copy: Path) -> dict[str, bytes]:
    """What the unbroken, local run has trained; taken out of the copy, so that it is trained again."""
    kept = trained(copy)
    shutil.rmtree(copy / f"results/demo/training/{NETWORK}/0")
    return kept


def trained(project: Path) -> dict[str, bytes]:
    return {name: (project / f"results/demo/training/{NETWORK}/0" / name).read_bytes() for name in OUTPUTS}


def half_trained(run: Run) -> Job:
    """Halt the training as soon as it has a state to go on from; return its job."""
    job = run.running("train_fold")
    states = run.project / f"results/demo/state/train_fold/{NETWORK}"
    wait_for(
        lambda: run.alive() and [*states.glob("*/*/training.pt")], "a state of the training", every=0.005
    )
    os.kill(training_process(run.project), signal.SIGSTOP)
    return job


def assert_resumed(project: Path, before: dict[str, bytes]) -> None:
    log = (project / f"results/demo/logs/train_fold/{NETWORK}/0.log").read_text()
    assert RESUMED.search(log)
    assert "epoch 1/60" not in log
    assert trained(project) == before


def test_a_cancelled_job_is_tried_again_and_goes_on_from_its_state(run, copy, before):
    # With a site's own figure for its memory, as the profile's comments show one.
    running = run(WEIGHTS, *ANY_NODE, "train_fold:mem_mb=4000 * attempt")
    slurm("scancel", half_trained(running).number)
    said = running.finish()
    assert "SLURM status is: 'CANCELLED'" in said and "Trying to restart job" in said
    numbers = re.findall(r"submitted with SLURM jobid (\d+)", said)
    assert [Job(number, "").field("MinMemoryNode") for number in numbers] == ["4000M", "8000M"]
    assert_resumed(copy, before)


def test_a_killed_process_is_tried_again_and_goes_on_from_its_state(run, copy, before):
    running = run(WEIGHTS, *ANY_NODE)
    half_trained(running)
    os.kill(training_process(copy), signal.SIGKILL)
    said = running.finish()
    assert "SLURM status is: 'FAILED'" in said and "Trying to restart job" in said
    assert_resumed(copy, before)


def test_a_job_that_runs_out_of_time_is_tried_again_and_goes_on_from_its_state(run, copy, before):
    running = run(WEIGHTS, *ANY_NODE)
    job = half_trained(running)
    # The job's twelve hours are cut to a minute, which it does not train through.
    slurm("scontrol", "update", f"JobId={job.number}", "TimeLimit=1")
    said = running.finish()
    assert "SLURM status is: 'TIMEOUT'" in said
    assert_resumed(copy, before)


def test_a_job_that_runs_out_of_memory_gets_twice_as_much_and_twice_the_time(run, copy):
    answers = f"results/demo/predictions/{NETWORK}/out_of_fold.parquet"
    before = (copy / answers).read_bytes()
    (copy / answers).unlink()
    rules = copy / "workflow/rules/learning.smk"
    head, rule = rules.read_text().split("rule predict_development:")
    # PyTorch with a network takes 1,000 MB, two Snakemakes 230.
    rules.write_text(f"{head}rule predict_development:{rule.replace('growing(8000)', 'growing(700)', 1)}")
    running = run(answers, "--set-resources", "predict_development:gpu=0")
    first = running.running("predict_development")
    assert (first.field("MinMemoryNode"), first.field("TimeLimit")) == ("700M", "04:00:00")
    second = wait_for(
        lambda: [job for job in running.jobs("predict_development", "RUNNING") if job.number != first.number],
        "a second attempt",
    )[0]
    assert (second.field("MinMemoryNode"), second.field("TimeLimit")) == ("1400M", "08:00:00")
    running.finish()
    (log,) = (copy / ".snakemake/slurm_logs/rule_predict_development").rglob(f"{first.number}.log")
    assert re.search(rf"StepId={first.number}\.0 exceeded memory limit", log.read_text())
    assert (copy / answers).read_bytes() == before


def test_a_node_that_loses_power_costs_no_attempt(run, copy, before):
    running = run(WEIGHTS, *ANY_NODE)
    job = half_trained(running)
    slurm(str(SCRIPT), "fail", job.node)
    said = running.finish()
    slurm(str(SCRIPT), "start")
    assert "Trying to restart job" not in said
    assert job.field("Restarts") == "1"
    assert_resumed(copy, before)


def test_a_preempted_job_waits_and_goes_on_from_its_state(run, copy, before):
    running = run(WEIGHTS)
    job = half_trained(running)
    # It takes the one node with a GPU.
    urgent = ["--partition", "urgent", "--exclusive", "--nodelist", job.node, "--output", "/dev/null"]
    slurm("sbatch", *urgent, "--wrap", "sleep 10")
    said = running.finish()
    assert "Trying to restart job" not in said
    assert job.field("Restarts") == "1"
    assert_resumed(copy, before)


def test_ctrl_c_leaves_nothing_in_the_queue_and_the_next_run_finishes(run, copy, before):
    other = WEIGHTS.replace("/0/", "/1/")
    others_weights = (copy / other).read_bytes()
    (copy / other).unlink()
    running = run(WEIGHTS, other)
    first = half_trained(running)
    # Both are SLURM's to order: one GPU, so that the other waits for it in the queue.
    waiting = wait_for(lambda: running.jobs("train_fold", "PENDING"), "a waiting job")[0]
    for job in (first, waiting):
        assert (job.field("TresPerJob"), job.field("NumCPUs")) == ("gres:gpu:1", "2")
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.process.wait(300) != 0
    wait_for(lambda: not slurm("squeue", "--noheader"), "an empty queue")
    run(WEIGHTS, other).finish()
    logs = (copy / f"results/demo/logs/train_fold/{NETWORK}").iterdir()
    assert any(RESUMED.search(path.read_text()) for path in logs)
    assert trained(copy) == before
    assert (copy / other).read_bytes() == others_weights


def test_a_type_of_gpu_is_asked_for_by_its_name(run, copy, before):
    """No node here has one: SLURM refuses the job, and Snakemake shows what was asked."""
    running = run(WEIGHTS, "--set-resources", "train_fold:gpu_model=a100")
    assert running.process.wait(300) != 0
    assert "--gpus=a100:1" in running.output
    assert "Requested node configuration is not available" in running.output
