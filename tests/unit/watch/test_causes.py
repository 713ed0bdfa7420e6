"""What somebody changed, gathered from the reasons of single jobs: small plans made by hand."""

import json
from dataclasses import replace

import pytest

from marrowflow.explain import told
from marrowflow.watch.causes import find_causes
from marrowflow.watch.durations import Durations
from marrowflow.watch.plan import Plan, PlannedJob, Reason

FOLLOWS = Reason(follows=True)


def job(id_, rule, reason=FOLLOWS, needs=(), module="", parameters=None, **wildcards):
    return PlannedJob(
        id_,
        rule,
        wildcards,
        module,
        needs,
        parameters={} if parameters is None else parameters,
        reason=reason,
    )


def options(**sections):
    return repr(json.dumps(sections, sort_keys=True))


def plan(*jobs, **known):
    return Plan(jobs, **{"finished_before": True, "cores": 2, **known})


def words(of):
    """Return each cause's words, with its own jobs and all that it reaches; and the words of those beside."""
    chief, beside = find_causes(of)
    return [(cause.text, sorted(cause.jobs), sorted(cause.reach)) for cause in chief], [
        c.text for c in beside
    ]


def test_a_new_hospital_is_one_cause_whatever_its_jobs_and_lists():
    new = Reason(missing=["x"], follows=True)
    lists = Reason(
        follows=True, added=["r/accuracy/delta/m.csv"], old=["['beta']"], new=["['beta', 'delta']"]
    )
    of = plan(
        job(1, "ingest_cohort", Reason(missing=["x"]), cohort="delta"),
        job(2, "predict_external", new, [1], model="m", cohort="delta"),
        job(3, "pool_hospitals", lists, [2], parameters={"hospitals": "['beta', 'delta']"}),
        job(4, "report_study", FOLLOWS, [3]),
        hospitals={"beta": "St. Bee", "delta": "General"},
        settled=["cohort=beta", "model=m"],
    )
    assert words(of) == ([("hospital delta (General) is new", [1, 2], [1, 2, 3, 4])], [])


def test_a_hospital_is_not_new_when_its_jobs_only_run_again():
    again = Reason(updated=["manifest.csv"])
    lost = Reason(missing=["x"])
    of = plan(
        job(1, "ingest_cohort", again, cohort="beta"), job(2, "report_cohort", lost, [1], cohort="beta")
    )
    assert words(of)[0] == [("manifest.csv changed", [1], [1, 2])]
    assert words(of)[1] == ["not made yet"]


def test_before_the_first_whole_run_nothing_is_called_new():
    of = plan(job(1, "ingest_cohort", Reason(missing=["x"]), cohort="delta"), finished_before=False)
    assert words(of)[0] == [("the study has not been run to its end yet", [1], [1])]


def test_a_changed_setting_is_told_by_its_place_and_values_once_for_all_networks():
    def changed(epochs):
        return Reason(
            old=[options(model={"training": {"epochs": 8, "rate": 0.1}}, classes=["a"])],
            new=[options(model={"training": {"epochs": epochs, "rate": 0.1}}, classes=["a"])],
        )

    one = plan(
        job(1, "train_fold", changed(4), model="m", fold="0"),
        job(2, "train_fold", changed(4), model="m", fold="1"),
    )
    assert words(one)[0] == [("the setting models.m.training.epochs: 8 → 4", [1, 2], [1, 2])]
    two = plan(job(1, "train_fold", changed(4), model="m"), job(2, "train_fold", changed(4), model="n"))
    assert words(two)[0] == [("the setting training.epochs: 8 → 4, of m, n", [1, 2], [1, 2])]
    apart = plan(job(1, "train_fold", changed(4), model="m"), job(2, "train_fold", changed(5), model="n"))
    assert [text for text, *_ in words(apart)[0]] == [
        "the setting models.m.training.epochs: 8 → 4",
        "the setting models.n.training.epochs: 8 → 5",
    ]


def test_a_setting_of_all_networks_is_one_cause_in_whatever_form_rules_have_it():
    """Of the jobs that have it, those count as concerned that do not follow others of them anyway."""
    one = Reason(
        old=[options(model={"training": {"epochs": 8}})], new=[options(model={"training": {"epochs": 4}})]
    )
    raw = Reason(
        follows=True,
        old=[options(models={"m": {"training": {"epochs": 8}}}, training={"epochs": 8})],
        new=[options(models={"m": {"training": {"epochs": 4}}}, training={"epochs": 4})],
    )
    of = plan(
        job(1, "train_fold", one, model="m"),
        job(2, "predict_development", one, [1], model="m"),
        job(3, "report_study", raw, [2]),
    )
    assert words(of) == ([("the setting training.epochs: 8 → 4, of m", [1], [1, 2, 3])], [])
    without = plan(*of.jobs[:2])
    assert words(without) == ([("the setting models.m.training.epochs: 8 → 4", [1], [1, 2])], [])


def test_two_settings_that_swap_their_values_are_both_told():
    reason = Reason(old=[options(model={"a": 1, "b": 2})], new=[options(model={"a": 2, "b": 1})])
    assert {text for text, *_ in words(plan(job(1, "train_fold", reason, model="m")))[0]} == {
        "the setting models.m.a: 1 → 2",
        "the setting models.m.b: 2 → 1",
    }


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (
            {"models": {"m": {"x": 1}}},
            {"models": {"m": {"x": 1}, "n": {"x": 1}}},
            "the setting models.n is new",
        ),
        ({"models": {"m": {}, "n": {}}}, {"models": {"m": {}}}, "the setting models.n is gone"),
        ({"intake": {}}, {"intake": {"min_side": 9}}, "the setting intake.min_side: not set before, now 9"),
        ({"texts": {"design": "a" * 60}}, {"texts": {"design": "b"}}, "the setting design changed"),
        ({"threads": {"m": 2}}, {"threads": {"m": 4}}, "the setting models.m.training.threads: 2 → 4"),
        ({"distance": 3}, {"distance": 2}, "the setting intake.near_duplicate_distance: 3 → 2"),
        (
            {"recipe": {"fraction": 0.1}},
            {"recipe": {"fraction": 0.2}},
            "the setting colour.raw.fraction: 0.1 → 0.2",
        ),
    ],
)
def test_settings_stand_where_the_user_finds_them(before, after, text):
    reason = Reason(old=[options(**before)], new=[options(**after)])
    assert words(plan(job(1, "correct_cohort", reason, colour="raw")))[0] == [(text, [1], [1])]


def test_a_list_that_follows_from_another_setting_is_told_only_by_itself():
    def reason(**more):
        return Reason(
            old=[options(index_tests=["a"], **dict.fromkeys(more, 1))],
            new=[options(index_tests=["a", "b"], **more)],
        )

    assert words(plan(job(1, "report_study", reason())))[0] == [("the list of index tests changed", [1], [1])]
    beside = plan(
        job(1, "lock_choices", Reason(missing=["x"]), model="b"), job(2, "report_study", reason(), [1])
    )
    assert words(beside) == ([("network b is new", [1], [1, 2])], [])


def test_edited_code_is_told_by_its_steps_and_by_what_they_share():
    old, new = "0" * 16, "1" * 16
    edited = Reason(old=[repr(old)], new=[repr(new)])
    other = Reason(old=[repr(old)], new=[repr("2" * 16)])
    codes = {"statistics.accuracy": new, "statistics.subgroups": "2" * 16, "reporting.external": "3" * 16}
    one = plan(job(1, "measure_accuracy", edited, module="statistics.accuracy"), codes=codes)
    assert words(one)[0] == [("the code of statistics.accuracy changed", [1], [1])]
    two = plan(
        job(1, "measure_accuracy", edited, module="statistics.accuracy"),
        job(2, "measure_subgroups", other, module="statistics.subgroups"),
        job(3, "report_study", FOLLOWS, [1, 2], module="reporting.study"),
        codes=codes,
    )
    (text, jobs, reach), *more = words(two)[0]
    assert text.startswith("the code of 2 steps changed (statistics.accuracy, statistics.subgroups")
    assert (jobs, reach, more) == ([1, 2], [1, 2, 3], [])


def test_what_runs_anyway_is_told_beside():
    code = Reason(old=[repr("0" * 16)], new=[repr("1" * 16)])
    of = plan(
        job(1, "train_fold", Reason(updated=["plan.parquet"]), model="m"),
        job(2, "measure_accuracy", code, [1], module="statistics.accuracy"),
        codes={"statistics.accuracy": "1" * 16},
    )
    assert words(of) == ([("plan.parquet changed", [1], [1, 2])], ["the code of statistics.accuracy changed"])


def test_a_removed_hospital_is_told_by_what_no_path_names_any_more():
    reason = Reason(
        removed=[
            "results/s/accuracy/sound/m/raw/gamma/metrics.csv",
            "results/s/accuracy/sound/m/raw/gamma/x.csv",
        ]
    )
    kept = ["results", "s", "accuracy", "sound", "m", "raw", "beta", "metrics.csv", "x.csv"]
    assert words(plan(job(1, "pool_hospitals", reason), paths=kept))[0] == [
        ("gamma is no longer in the study", [1], [1])
    ]
    beside = replace(reason, instead={"gamma": "beta"})
    assert words(plan(job(1, "pool_hospitals", beside), paths=kept, hospitals={"beta": "St. Bee"}))[0] == [
        ("hospital gamma is no longer in the study", [1], [1])
    ]
    assert words(plan(job(1, "pool_hospitals", reason), paths=[*kept, "gamma"]))[0] == [
        ("files are no longer read, such as results/s/accuracy/sound/m/raw/gamma/metrics.csv", [1], [1])
    ]


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (Reason(asked=True), "asked for on the command line"),
        (Reason(unfinished=True), "an interrupted run left their files unfinished"),
        (Reason(missing=["a"], once_made=["a"]), "what earlier runs made is no longer there"),
        (Reason(rule_changed=True), "the command of rule ingest_cohort changed"),
        (Reason(environment_changed=True), "software environments changed"),
        (Reason(added=["map.csv"]), "further files are read, such as map.csv"),
        (Reason(old=["'a'"], new=["'b'"]), "the parameter source of ingest_cohort changed"),
    ],
)
def test_every_other_reason_has_words(reason, text):
    of = plan(job(1, "ingest_cohort", reason, parameters={"source": "'b'"}, cohort="beta"))
    assert words(of)[0] == [(text, [1], [1])]


def test_what_is_made_again_only_for_others_counts_with_them():
    """A part that is only kept until it has been read has no reason of its own."""
    of = plan(
        job(1, "correct_shard", Reason()),
        job(2, "correct_cohort", Reason(updated=["x"]), [1]),
        job(3, "report_study", FOLLOWS, [2]),
    )
    assert words(of) == ([("x changed", [2], [1, 2, 3])], [])


def test_a_plan_goes_through_json_unchanged():
    of = plan(
        job(1, "train_fold", Reason(missing=["a"], new=["'b'"]), [2], model="m"), slots=3, settled=["fold=1"]
    )
    assert Plan.from_json(of.to_json()).to_json() == of.to_json()
    assert find_causes(Plan.from_json(of.to_json())) == find_causes(of)


def test_the_words_of_a_whole_plan():
    of = plan(
        job(1, "train_fold", Reason(updated=["x"]), model="m", colour="raw"),
        job(2, "train_fold", Reason(updated=["x"]), model="m", colour="raw"),
        job(3, "report_study", FOLLOWS, [1, 2]),
    )
    durations = Durations({"train_fold": {"a": 600.0}, "report_study": {"b": 60.0}})
    assert told(of, durations) == [
        "3 jobs will run; 2 networks train (2 of m-raw): about 10 min by earlier runs.",
        "All of it takes about 11 min on 2 cores, by earlier runs.",
        "",
        "Why:",
        "- x changed: 2 jobs, and 1 that follows",
        "",
        "What is made:",
        "  training  2 networks",
        "  reports   1 study report",
    ]
    assert told(plan(), durations) == ["Nothing to do: every result is there and made of what is there now."]
    unknown = told(of, Durations({"report_study": {"b": 60.0}}))
    assert unknown[0].endswith("(2 of m-raw): for how long is unknown.")
    assert (
        unknown[1] == "All of it takes at least 1 min on 2 cores, without train_fold, which never ran before."
    )


def test_many_causes_are_cut_to_a_screen():
    of = plan(*(job(n, "ingest_cohort", Reason(updated=[f"{n:02}.csv"]), cohort=f"c{n}") for n in range(30)))
    lines = told(of, Durations({}))
    assert "- 24 further changes: 24 jobs" in lines
    assert len(lines) <= 20
