"""How far a run is: events by hand, on a clock by hand."""

from dataclasses import replace

import pytest

from marrowflow.watch.durations import Durations
from marrowflow.watch.plan import Plan, PlannedJob
from marrowflow.watch.progress import Failure, Progress, failure_lines, tail

LENGTHS = {"train_fold": 100.0, "measure_accuracy": 10.0, "report_study": 30.0}


def jobs():
    return [
        PlannedJob(0, "report_study", needs=[3, 4]),
        PlannedJob(1, "train_fold", {"model": "m", "fold": "0"}),
        PlannedJob(2, "train_fold", {"model": "m", "fold": "1"}),
        PlannedJob(3, "measure_accuracy", {"cohort": "beta"}, needs=[1, 2]),
        PlannedJob(4, "measure_accuracy", {"cohort": "gamma"}, needs=[1, 2]),
    ]


def progress(lengths=LENGTHS, **limits):
    plan = Plan(jobs(), {"beta": "St. Bee"}, **{"cores": 1, **limits})
    return Progress(plan, Durations({rule: {"": seconds} for rule, seconds in lengths.items()}), 1000.0)


def test_the_opening_counts_jobs_by_stage_and_the_time_of_them_all():
    assert progress().opening() == "5 jobs to do (training 2, statistics 2, reports 1); about 4 min left"
    assert progress(cores=8).opening().endswith("about 2 min left")
    assert progress({}).opening().endswith("; time left unknown, for want of an earlier run")
    assert (
        progress(cores=None, slots=9).opening().endswith("about 2 min left, waiting in the queue not counted")
    )


def test_a_line_says_what_is_done_what_is_left_of_each_stage_and_what_runs():
    run = progress()
    run.started([1], 1000.0)
    assert run.line(1040.0) == (
        "0 of 5 jobs done; about 4 min left"
        " (training 3 min, statistics 20 s, reports 30 s); running: train_fold m 0 40 s"
    )
    assert run.finished(1, 1100.0) == ""
    run.started([2], 1100.0)
    assert run.finished(2, 1200.0) == "training done: 2 networks in 3 min"
    run.started([3], 1200.0)
    assert run.line(1205.0) == (
        "2 of 5 jobs done; about 45 s left (statistics 15 s, reports 30 s); running: measure_accuracy beta 5 s"
    )


def test_stages_of_unknown_length_are_said_to_be_and_become_known_by_their_first_job():
    run = progress({"report_study": 30.0})
    assert (
        run.line(1000.0)
        == "0 of 5 jobs done; at least 30 s left (reports 30 s; unknown: training, statistics)"
    )
    run.started([1], 1000.0)
    run.finished(1, 1050.0)
    assert run.line(1050.0) == (
        "1 of 5 jobs done; at least 1 min left (training 50 s, reports 30 s; unknown: statistics)"
    )


def test_a_submitted_job_may_still_wait_and_counts_in_full():
    """Five hours after its submission, too: it has not run for one of its seconds, as far as anybody knows."""
    run = progress(cores=None, slots=9)
    run.started([1, 2], 1000.0)
    assert run.line(19000.0) == (
        "0 of 5 jobs done; about 2 min left, waiting in the queue not counted"
        " (training 2 min, statistics 10 s, reports 30 s);"
        " submitted: train_fold m 0 5 h, train_fold m 1 5 h"
    )


def benchmark(tmp_path, seconds):
    path = tmp_path / "benchmarks/train_fold/m.tsv"
    path.parent.mkdir(parents=True)
    path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:01\t5.0\n")
    return str(path)


@pytest.mark.parametrize(
    ("lengths", "seconds", "left"),
    [
        # nothing is known of it: the other training takes what this one took
        ({"report_study": 30.0}, 50.0, "at least 1 min left"),
        # three times what was expected, so that 100 + 10 + 30 s become 420
        (LENGTHS, 300.0, "about 7 min left"),
    ],
)
def test_on_a_cluster_a_jobs_benchmark_says_how_long_it_ran(tmp_path, lengths, seconds, left):
    run = progress(lengths, cores=None, slots=9)
    run.jobs[1] = replace(run.jobs[1], benchmark=benchmark(tmp_path, seconds))
    run.started([1], 1000.0)
    run.finished(1, 19000.0)
    assert run.line(19000.0).split(", waiting")[0] == f"1 of 5 jobs done; {left}"


@pytest.mark.parametrize(
    ("cores", "left"), [(1, "about 8 min left"), (None, "about 2 min left, waiting in the queue not counted")]
)
def test_a_slower_machine_shows_in_the_time_left_and_a_queue_does_not(cores, left):
    run = progress(cores=cores)
    run.started([1], 1000.0)
    run.finished(1, 1300.0)  # in 300 s instead of 100; left are 100, 10, 10 and 30
    assert run.line(1300.0).split(" (")[0] == f"1 of 5 jobs done; {left}"


def test_a_job_that_failed_and_then_ended_well_is_not_counted_as_failed():
    run = progress()
    run.started([1], 1000.0)
    run.failure(1, ["x.log"])
    assert run.line(1001.0).startswith("0 of 5 jobs done, 1 failed; ")
    run.started([1], 1002.0)
    run.finished(1, 1100.0)
    assert run.line(1100.0).startswith("1 of 5 jobs done; ")


def test_numbers_of_other_things_are_passed_over():
    run = progress()
    run.started([99, "group-1", None], 1000.0)
    assert (run.running, run.finished(99, 1.0), run.finished(None, 1.0), run.failure("g", [])) == (
        {},
        "",
        "",
        None,
    )


def test_the_closing_tells_of_success_or_of_each_failed_job_once_more(tmp_path):
    run = progress()
    for n in range(5):
        run.started([n], 1000.0 + n)
        run.finished(n, 1060.0 + n)
    assert run.closing(1090.0) == ["done: 5 jobs in 2 min"]
    log = tmp_path / "beta.log"
    log.write_text("INFO reading\nerror: no patient of class AML\n")
    run = progress()
    run.started([3], 1000.0)
    run.failure(3, [str(log)])
    assert run.closing(1030.0) == [
        "stopped after 30 s: 0 of 5 jobs done, 1 failed:",
        "  measure_accuracy: hospital beta (St. Bee)",
        f"    log: {log}",
        "    error: no patient of class AML",
    ]
    assert progress().closing(1010.0) == ["stopped after 10 s: 0 of 5 jobs done"]


def test_a_failed_job_shows_its_logs_and_the_end_of_the_last_that_says_something(tmp_path):
    own, slurm, missing = tmp_path / "own.log", tmp_path / "slurm.log", tmp_path / "missing.log"
    own.write_text("")
    slurm.write_text("".join(f"line {n}\n" for n in range(50)) + "slurmstepd: out of memory\n")
    job = jobs()[1]
    lines = failure_lines(
        Failure(job, [str(own), str(slurm), str(missing)], "SLURM status is: OUT_OF_MEMORY"), {}
    )
    assert lines == [
        "FAILED train_fold: model m, fold 0",
        "  SLURM status is: OUT_OF_MEMORY",
        f"  log: {own} (empty or missing)",
        f"  log: {slurm}",
        *(f"  | line {n}" for n in range(31, 50)),
        "  | slurmstepd: out of memory",
        f"  log: {missing} (empty or missing)",
    ]


@pytest.fixture
def clusters(tmp_path):
    """Two logs of a failed job, as it is on a cluster: the step's own, and what the nested Snakemake said of it."""
    own, slurm = tmp_path / "own.log", tmp_path / "slurm.log"
    own.write_text("".join(f"epoch {n}\n" for n in range(30)))
    boilerplate = [f"Building DAG of jobs... {n}" for n in range(30)]
    slurm.write_text("\n".join([*boilerplate, "At least one job failed.", "slurmstepd: TIME LIMIT"]) + "\n")
    return own, slurm


def test_a_failed_job_of_a_cluster_shows_its_own_log_before_the_last_lines_of_the_clusters(clusters):
    own, slurm = clusters
    assert failure_lines(Failure(jobs()[1], [str(own), str(slurm)]), {}) == [
        "FAILED train_fold: model m, fold 0",
        f"  log: {own}",
        *(f"  | epoch {n}" for n in range(10, 30)),
        f"  log: {slurm}",
        *(f"  | Building DAG of jobs... {n}" for n in (27, 28, 29)),
        "  | At least one job failed.",
        "  | slurmstepd: TIME LIMIT",
    ]


def test_the_closing_tells_a_steps_error_in_full_and_without_one_what_cluster_and_logs_say_last(clusters):
    own, slurm = clusters
    run = progress(cores=None)
    run.failure(1, [str(own), str(slurm)], "SLURM status is: 'TIMEOUT'\nsee sacct")
    assert run.closing(1010.0)[4:] == [
        "    SLURM status is: 'TIMEOUT'",
        "    epoch 29",
        "    slurmstepd: TIME LIMIT",
    ]
    own.write_text(
        own.read_text() + "error: 2 tables do not fit:\n  a.csv has no column x\n  b.csv is empty\n"
    )
    assert run.closing(1010.0)[4:] == [
        "    SLURM status is: 'TIMEOUT'",
        "    error: 2 tables do not fit:",
        "      a.csv has no column x",
        "      b.csv is empty",
    ]


def test_a_clusters_refusal_is_shown_with_what_was_asked_for():
    call = f"sbatch --job-name {'x' * 400} --gpus=a100:1 --mem 4000"
    message = f"SLURM sbatch failed. The error message was 'no\x1b[1m such node'.\n    sbatch call:\n        {call}\n"
    lines = failure_lines(Failure(jobs()[1], [], message), {})
    assert lines[1:] == [
        "  SLURM sbatch failed. The error message was 'no[1m such node'.",
        "      sbatch call:",
        f"          {call}",
    ]
    endless = failure_lines(Failure(jobs()[1], [], "x" * 100_000), {})
    assert len(endless[1].strip()) == 2000


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"a\nb\n\n\nc", ["b", "c"]),
        (b"\x1b[31mred\x1b[0m \x07bell\n", ["[31mred[0m bell"]),
        (b"10%\r20%\r30%\n", ["20%", "30%"]),
        (b"\xff\xfe half\n", ["\ufffd\ufffd half"]),
        (b"x" * 200_000, ["x" * 300]),
    ],
)
def test_a_logs_end_is_readable_whatever_stands_in_it(tmp_path, content, lines):
    path = tmp_path / "job.log"
    path.write_bytes(content)
    assert tail(str(path), 2) == lines
