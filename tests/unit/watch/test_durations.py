"""How long jobs take, and how long a run will: against schedules made by hand, and by the plainest way there is."""

import random
import sys

import pytest

from marrowflow.watch import durations as module
from marrowflow.watch.durations import Durations, read_durations, time_left
from marrowflow.watch.plan import Plan, PlannedJob


def job(id_, rule, needs=(), threads=1, gpus=0):
    return PlannedJob(
        id_, rule, needs=needs, threads=threads, gpus=gpus, benchmark=f"r/benchmarks/{rule}/{id_}.tsv"
    )


def write(folder, path, *seconds):
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(["s\th:m:s\tmax_rss", *(f"{s}\t0:00:01\t5.0" for s in seconds)]) + "\n")


def lengths(**seconds):
    return Durations({rule: {"elsewhere": length} for rule, length in seconds.items()})


def test_a_job_takes_what_it_took_or_its_rules_median_or_what_this_run_shows(tmp_path):
    for id_, seconds in ((1, 10.0), (2, 20.0), (3, 90.0)):
        write(tmp_path, f"r/benchmarks/train/{id_}.tsv", seconds)
    write(tmp_path, "r/benchmarks/other/1.tsv", 7.0)
    durations = read_durations([job(1, "train"), job(9, "new")], tmp_path)
    assert durations.of(job(3, "train")) == 90.0
    assert durations.of(job(4, "train")) == 20.0
    assert durations.of(job(9, "new")) is None
    for seconds in (5.0, 1.0, 3.0):
        durations.add("new", seconds)
    durations.add("train", 1.0)
    assert durations.of(job(9, "new")) == 3.0
    assert durations.of(job(4, "train")) == 20.0, "earlier runs count first"


def test_benchmarks_of_rules_without_wildcards_and_broken_ones(tmp_path):
    write(tmp_path, "r/benchmarks/report.tsv", 4.0)
    (tmp_path / "r/benchmarks/train").mkdir()
    (tmp_path / "r/benchmarks/train/1.tsv").write_text("s\nsoon\n")
    (tmp_path / "r/benchmarks/train/2.tsv").write_bytes(b"\xff\xfe\x00")
    report = PlannedJob(1, "report", benchmark="r/benchmarks/report.tsv")
    durations = read_durations([report, job(2, "train")], tmp_path)
    assert durations.of(report) == 4.0
    assert durations.of(job(1, "train")) is None


@pytest.mark.parametrize(
    ("plan", "seconds"),
    [
        # three of 10 s on two cores: two together, then one
        (Plan([job(1, "a"), job(2, "a"), job(3, "a")], cores=2), 20),
        # a chain of 10 + 4 s, and 3 s beside it
        (Plan([job(1, "a"), job(2, "b", [1]), job(3, "c")], cores=2), 14),
        # the same on one core
        (Plan([job(1, "a"), job(2, "b", [1]), job(3, "c")], cores=1), 17),
        # one GPU sets the pace, whatever the cores
        (Plan([job(1, "a", gpus=1), job(2, "a", gpus=1)], cores=8, gpus=1), 20),
        (Plan([job(1, "a", gpus=1), job(2, "a", gpus=1)], cores=8, gpus=2), 10),
        # more threads than there are: scaled down to what there is, and alone
        (Plan([job(1, "a", threads=4), job(2, "b", threads=4)], cores=2), 14),
        # on a cluster: two jobs at a time, cores without end
        (Plan([job(n, "a", threads=64) for n in range(4)], slots=2), 20),
        # the long chain goes first: 10 s, beside it 3 + 4 s
        (Plan([job(1, "c"), job(2, "b"), job(3, "a")], cores=2), 10),
        # so it does among those that wait for another one: 3 s, then 10 s, beside it 4 + 3 s
        (Plan([job(1, "c"), job(2, "c", [1]), job(3, "b", [1]), job(4, "a", [1])], cores=2), 13),
        (Plan([], cores=2), 0),
    ],
)
def test_the_rest_of_a_run_is_as_long_as_its_schedule(plan, seconds):
    assert time_left(plan.jobs, plan, lengths(a=10.0, b=4.0, c=3.0)) == (seconds, [])


def played(plan, seconds):
    """Play a run through job by job, looking at all of them whenever one has ended.

    Returns its length.
    """
    jobs = {each.id: each for each in plan.jobs}
    depends = {}
    for id_ in sorted(jobs, reverse=True):  # needs have lower numbers
        depends[id_] = seconds[id_] + max((depends[n] for n in depends if id_ in jobs[n].needs), default=0)
    left, ended, busy, now = set(jobs), set(), {}, 0
    while left or busy:
        for id_ in sorted(left, key=lambda n: (-depends[n], n)):
            threads = sum(min(jobs[n].threads, plan.cores) for n in [id_, *busy])
            gpus = sum(min(jobs[n].gpus, plan.gpus) for n in [id_, *busy])
            fits = threads <= plan.cores and gpus <= plan.gpus and len(busy) < plan.slots
            if fits and ended.issuperset(jobs[id_].needs):
                busy[id_] = now + seconds[id_]
                left.remove(id_)
        first = min(busy, key=lambda n: (busy[n], n))
        now = busy.pop(first)
        ended.add(first)
    return now


def random_plan(seed, count=40):
    rng = random.Random(seed)
    jobs = []
    for id_ in range(count):
        needs = rng.sample(range(id_), min(id_, rng.choice([0, 0, 1, 2])))
        jobs.append(job(id_, f"r{id_}", needs, rng.choice([1, 1, 2, 3, 8]), rng.choice([0, 0, 1, 2])))
    limits = {"cores": rng.randint(1, 6), "gpus": rng.randint(0, 2), "slots": rng.randint(1, 5)}
    return Plan(jobs, **limits), {id_: rng.randint(0, 20) for id_ in range(count)}


@pytest.mark.parametrize("seed", range(50))
def test_a_run_of_any_shape_is_as_long_as_when_it_is_played_job_by_job(seed):
    plan, seconds = random_plan(seed)
    told, unknown = time_left(plan.jobs, plan, lengths(**{f"r{id_}": float(s) for id_, s in seconds.items()}))
    assert (told, unknown) == (played(plan, seconds), [])


def lines_run(count, **limits):
    """Count the lines that are run to schedule a number of jobs, half of which want a GPU."""
    plan = Plan([job(n, "a", gpus=n % 2) for n in range(count)], **limits)
    run = 0

    def trace(frame, event, _):
        nonlocal run
        if frame.f_code.co_filename != module.__file__:
            return None
        run += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        time_left(plan.jobs, plan, lengths(a=10.0))
    finally:
        sys.settrace(before)
    return run


@pytest.mark.parametrize(
    "limits", [{"cores": 4}, {"cores": 8, "gpus": 1}, {"slots": 5}], ids=["cores", "gpus", "slots"]
)
def test_twice_the_jobs_take_twice_the_work(limits):
    assert 1.8 < lines_run(400, **limits) / lines_run(200, **limits) < 2.2


def test_a_running_job_needs_what_is_left_of_it_and_an_overdue_one_nothing():
    plan = Plan([job(1, "a"), job(2, "b", [1])], cores=1)
    assert time_left(plan.jobs, plan, lengths(a=10.0, b=4.0), {1: 7.0}) == (7.0, [])
    assert time_left(plan.jobs, plan, lengths(a=10.0, b=4.0), {1: 70.0}) == (4.0, [])


def test_rules_of_unknown_length_are_named_and_a_job_that_ended_holds_none_up():
    plan = Plan([job(1, "a"), job(2, "x", [1]), job(3, "y", [2])], cores=1)
    assert time_left(plan.jobs, plan, lengths(a=10.0)) == (10.0, ["x", "y"])
    assert time_left(plan.jobs[2:], plan, lengths(y=2.0)) == (2.0, [])
