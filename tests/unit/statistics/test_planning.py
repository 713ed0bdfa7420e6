"""Planned numbers of patients against published examples, other libraries, algebra and data of the planned size."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, t

from marrowflow.errors import UserError
from marrowflow.predictions import check_predictions
from marrowflow.statistics.intervals import wilson, wilson_clustered
from marrowflow.statistics.pilot import describe_pilot
from marrowflow.statistics.planning import main
from marrowflow.statistics.sample_size import (
    Design,
    Target,
    auc_variance,
    design_effect,
    expected_interval,
    patients_needed,
    textbook_size,
)

HALF = Target("half_width", 0.05)


@pytest.mark.parametrize(("each", "error"), [(40, 0.0437), (60, 0.0356)])
def test_published_standard_errors_of_an_auc(each, error):
    """Hanley and McNeil 1982, their example of an expected area of .85 with 40 or 60 patients in each group."""
    assert math.sqrt(auc_variance(0.85, each, each)) == pytest.approx(error, abs=5e-5)


def test_auc_variance_of_scores_that_are_exponential():
    """Q₁ and Q₂ by integration: P(two diseased beat a healthy one), P(a diseased one beats two healthy)."""
    u = (np.arange(200_000) + 0.5) / 200_000  # quantiles of the healthy scores, rate 1
    auc, r = 0.88, 0.12 / 0.88  # a diseased score with rate r exceeds a healthy one with chance 1 / (1 + r)
    beaten_by = (1 - u) ** r
    q1 = (beaten_by**2).mean()
    q2 = ((1 - (1 - u) ** (1 / r)) ** 2).mean()
    assert beaten_by.mean() == pytest.approx(auc, abs=1e-6)
    m, n = 37, 81
    by_hand = (auc * (1 - auc) + (m - 1) * (q1 - auc**2) + (n - 1) * (q2 - auc**2)) / (m * n)
    assert auc_variance(auc, m, n) == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize(
    ("share", "margin", "images"),
    # samplesize_confint_proportion of statsmodels 0.15.0, rounded up
    [(0.9, 0.05, 139), (0.9, 0.1, 35), (0.85, 0.1, 49), (0.95, 0.05, 73), (0.8, 0.05, 246)],
)
def test_textbook_number_of_images(share, margin, images):
    found = textbook_size("proportion", share, Target("half_width", margin), Design(), 0.95)
    assert found == (images, images)


def test_textbook_number_of_patients():
    # A published worked example: sensitivity 80 % ± 5 %, prevalence 20 %, 1,230 patients of whom 246 have the condition.
    assert textbook_size("sensitivity", 0.8, HALF, Design(0.2), 0.95) == (246, 1230)
    # Specificity counts the others; clusters multiply by the design effect and divide by the images a patient.
    assert textbook_size("specificity", 0.8, HALF, Design(0.2), 0.95) == (246, math.ceil(245.8534 / 0.8))
    alike = Design(0.2, images=10, icc=1)
    assert textbook_size("sensitivity", 0.8, HALF, alike, 0.95) == (246, 1230)
    assert textbook_size("sensitivity", 0.8, Target("lower_limit", 0.75), Design(0.2), 0.95) == (246, 1230)
    assert textbook_size("sensitivity", 1.0, HALF, Design(0.2), 0.95) is None


@pytest.mark.parametrize("prevalence", [0.1, 0.5, 0.8])
def test_textbook_auc_is_where_the_margin_is_reached(prevalence):
    images, patients = textbook_size("auc", 0.85, HALF, Design(prevalence), 0.95)
    assert images == patients

    def margin(n):
        return 1.959964 * math.sqrt(auc_variance(0.85, n * prevalence, n * (1 - prevalence)))

    assert margin(images) <= 0.05 < margin(images - 1)


def test_design_effect_is_the_sum_over_patients():
    """Σm(1 + (m - 1) ICC) / Σm, from the covariance of the images of each patient."""
    m = np.array([1, 4, 4, 7, 30.0])
    cv = m.std() / m.mean()
    for icc in (0, 0.17, 1):
        assert design_effect(m.mean(), cv, icc) == pytest.approx((m * (1 + (m - 1) * icc)).sum() / m.sum())
    # Eldridge and others: 1 + ((CV² + 1) m - 1) ICC
    assert design_effect(30, 0.65, 0.05) == pytest.approx(1 + (1.4225 * 30 - 1) * 0.05)


def test_one_image_a_patient_is_wilsons_interval_but_for_the_t_quantile():
    found = expected_interval("proportion", 0.9, 10_000, Design(), 0.95)
    independent = wilson(9000, 10_000, 0.95)
    assert (found.low, found.high) == pytest.approx((independent.low, independent.high), abs=2e-6)


def test_planned_auc_has_the_limits_that_are_printed():
    """Logit limits with one degree of freedom less than the rarer group has patients: 12 of 40, one image each."""
    found = expected_interval("auc", 0.9, 40, Design(0.3), 0.95)
    half = t.ppf(0.975, 11) * math.sqrt(auc_variance(0.9, 12, 28)) / (0.9 * 0.1)
    limits = [1 / (1 + math.exp(-math.log(0.9 / 0.1) - sign * half)) for sign in (-1, 1)]
    assert [found.low, found.high] == pytest.approx(limits)
    assert found.method == "jackknife_logit"


@pytest.mark.parametrize("metric", ["sensitivity", "auc"])
def test_extremes_of_the_correlation(metric):
    """ICC 0: every image counts. ICC 1: every patient counts once, whatever its images."""
    single = expected_interval(metric, 0.9, 400, Design(0.5), 0.95)
    alike = expected_interval(metric, 0.9, 400, Design(0.5, images=8, icc=1), 0.95)
    assert (alike.low, alike.high) == pytest.approx((single.low, single.high))
    unlike = expected_interval(metric, 0.9, 400, Design(0.5, images=8, icc=0), 0.95)
    more = expected_interval(metric, 0.9, 3200, Design(0.5), 0.95)
    # The same images of fewer patients: only the degrees of freedom of a proportion's t quantile differ.
    assert (unlike.low, unlike.high) == pytest.approx((more.low, more.high), abs=5e-4)
    assert unlike.high - unlike.low < 0.5 * (alike.high - alike.low)


@settings(deadline=None, max_examples=60)
@given(
    metric=st.sampled_from(["sensitivity", "specificity", "proportion", "auc"]),
    expected=st.floats(0.55, 0.99),
    kind=st.sampled_from(["half_width", "lower_limit"]),
    margin=st.floats(0.02, 0.3),
    prevalence=st.floats(0.05, 0.95),
    images=st.floats(1, 30),
    icc=st.floats(0, 1),
)
def test_one_patient_fewer_is_too_few(metric, expected, kind, margin, prevalence, images, icc):
    """Nor is any smaller number enough: the target is met from the planned number on, and never before."""
    target = Target(kind, margin if kind == "half_width" else expected - margin)
    design = Design(prevalence, images, 0.5, icc)
    needed = patients_needed(metric, expected, target, design, 0.95)
    met = [
        target.is_met(expected_interval(metric, expected, n, design, 0.95))
        for n in (*range(max(1, needed - 200), needed), *range(needed, needed + 50))
    ]
    assert not any(met[:-50]) and all(met[-50:])


def test_number_of_patients_by_hand():
    """Prevalence .3: the smallest k with Wilson's half-width at t(k - 1), then k / .3 patients."""

    def half_width(k):
        q = t.ppf(0.975, k - 1)
        return q / (k + q * q) * math.sqrt(k * 0.9 * 0.1 + q * q / 4)

    k = next(k for k in range(2, 1000) if half_width(k) <= 0.05)
    needed = patients_needed("sensitivity", 0.9, HALF, Design(0.3), 0.95)
    assert needed == math.ceil(round(k / 0.3, 9))
    assert Design(0.3).divide(needed)[0] == k
    others = patients_needed("specificity", 0.9, HALF, Design(0.3), 0.95)
    assert others == math.ceil(round(k / 0.7, 9))
    # The decimal number is meant, not the nearest float: .29 × 100 is 28.999… in floats.
    assert Design(0.29).divide(100) == (29, 71)


def clustered(share, icc, sizes):
    """Patients' counts whose distribution is exact: a mixture of binomial patients and of patients with equal images."""
    x, m = [], []
    for size, patients in sizes.items():
        chances = (1 - icc) * binom.pmf(np.arange(size + 1), size, share)
        chances[0] += icc * (1 - share)
        chances[size] += icc * share
        numbers = chances * patients
        assert numbers == pytest.approx(numbers.round(), abs=1e-6)
        x += np.repeat(np.arange(size + 1), numbers.round().astype(int)).tolist()
        m += [size] * patients
    return np.array(x, dtype=float), np.array(m, dtype=float)


@pytest.mark.parametrize(
    ("icc", "sizes"),
    [(0.5, {2: 200}), (1, {1: 50, 5: 70}), (0.5, {1: 200, 2: 200}), (0.5, {3: 4000, 1: 1000}), (0, {2: 300})],
)
def test_data_of_the_planned_size_have_the_planned_interval(icc, sizes):
    """Planned for data and computed from them agree, but for the I/(I - 1) of the variance estimate."""
    x, m = clustered(0.9, icc, sizes)
    share, patients = x.sum() / m.sum(), len(m)
    design = Design(images=m.mean(), images_cv=m.std() / m.mean(), icc=icc)
    planned = expected_interval("proportion", share, patients, design, 0.95)
    computed = wilson_clustered(x, m, 0.95)

    def effective(interval):
        """The number of images for which the lower limit is where Wilson's score test turns."""
        quantile = t.ppf(0.975, patients - 1)
        return quantile**2 * interval.low * (1 - interval.low) / (share - interval.low) ** 2

    assert effective(planned) / effective(computed) == pytest.approx(patients / (patients - 1), rel=1e-9)
    # So the plan for the computed width asks for these patients, or for one or two fewer.
    target = Target("half_width", (computed.high - computed.low) / 2)
    assert patients - 2 <= patients_needed("proportion", share, target, design, 0.95) <= patients


def test_all_right_is_planned_as_it_is_printed():
    """At 100 % the printed interval takes images of a patient as alike, and so must the plan, whatever the ICC."""
    m = np.array([1, 2, 3, 4, 5.0] * 8)
    planned = expected_interval("proportion", 1.0, 40, Design(images=3, images_cv=m.std() / 3, icc=0.2), 0.95)
    printed = wilson_clustered(m, m, 0.95)
    assert (planned.low, planned.high) == pytest.approx((printed.low, printed.high))


def pilot_table(images=4):
    """Patients alternately with and without the condition; every third and the second are wrong on all images."""
    rows = [
        {
            "patient_id": f"p{i}",
            "truth": "yes" if i % 2 else "no",
            "p_yes": 0.3 + 0.4 * ((i % 2 == 1) != (i % 3 == 0 or i == 1)) + 0.001 * i,
        }
        for i in range(24)
        for _ in range(images)
    ]
    return pd.DataFrame(rows).assign(p_no=lambda d: 1 - d["p_yes"])


def test_pilot_whose_images_are_alike():
    found = describe_pilot(check_predictions(pilot_table(), ["no", "yes"]), ["yes"]).set_index("metric")
    assert list(found.index) == ["sensitivity", "specificity", "proportion", "auc"]
    assert found.loc["sensitivity", ["patients", "images", "images_cv"]].tolist() == [12, 4, 0]
    assert found["estimate"].tolist()[:3] == pytest.approx([7 / 12, 8 / 12, 15 / 24])
    assert found["icc"].iloc[:3].tolist() == pytest.approx([1, 1, 1])
    # Ratio-estimator variance I/(I-1) Σ(4r)²/n² over p(1-p)/n: 4 images count as one, with all 24 patients in I/(I - 1).
    assert found["deff"].iloc[:3].tolist() == pytest.approx([4 * 24 / 23] * 3)
    # Obuchowski's 12/11 against DeLong's 48/47 in either group.
    of_auc = 4 * (12 / 11) / (48 / 47)
    assert found.loc["auc", ["deff", "icc"]].tolist() == pytest.approx([of_auc, (of_auc - 1) / (4 - 1)])


def test_pilot_with_unequal_numbers_of_images(caplog, tmp_path):
    """Two and six images in turn, half of them right: CV 2/4, and patients more equal than chance would make them."""
    table = pd.DataFrame(
        [
            {"patient_id": i, "truth": truth, "predicted": ("yes", "no")[image % 2]}
            for truth in ("yes", "no")
            for i in range(12 * (truth == "no"), 12 * (1 + (truth == "no")))
            for image in range((2, 6)[i % 2])
        ]
    )
    found = describe_pilot(check_predictions(table), ["yes"]).set_index("metric")
    assert found.loc["specificity", ["images", "images_cv"]].tolist() == [4, 0.5]
    assert found["icc"].max() < 0
    pilot = tmp_path / "pilot.csv"
    table.to_csv(pilot, index=False)
    ask = ["--specificity", ".9", "--half-width", ".1", "--prevalence", ".3", "--out", str(tmp_path)]
    main([*ask, "--predictions", str(pilot), "--positive", "yes"])
    planned = pd.read_csv(tmp_path / "planning.csv")
    assert planned.loc[0, ["images", "images_cv", "icc", "deff"]].tolist() == [4, 0.5, 0, 1]
    assert "0 is taken" in caplog.text


def test_pilot_fills_in_what_is_left_out(tmp_path, capsys):
    pilot = tmp_path / "pilot.csv"
    pilot_table().to_csv(pilot, index=False)
    ask = ["--sensitivity", ".9", "--half-width", ".1", "--prevalence", ".3", "--out", str(tmp_path / "out")]
    main([*ask, "--predictions", str(pilot), "--positive", "yes"])
    from_pilot = pd.read_csv(tmp_path / "out" / "planning.csv")
    assert from_pilot.loc[0, ["images", "images_cv", "icc"]].tolist() == pytest.approx([4, 0, 1])
    assert pd.read_csv(tmp_path / "out" / "pilot.csv")["metric"].tolist()[0] == "sensitivity"
    main([*ask, "--images", "4", "--icc", "1"])
    typed = pd.read_csv(tmp_path / "out" / "planning.csv")
    assert typed["patients"].tolist() == from_pilot["patients"].tolist()
    assert str(typed["patients"][0]) in capsys.readouterr().out


def test_step_there_and_back(tmp_path):
    """The number that is planned for a half-width has, asked the other way round, that half-width."""
    common = [
        "--sensitivity",
        ".9",
        "--auc",
        ".85",
        "--prevalence",
        ".3",
        "--images",
        "10",
        "--images-cv",
        ".7",
    ]
    main([*common, "--icc", "0", ".3", "--half-width", ".05", ".1", "--out", str(tmp_path)])
    planned = pd.read_csv(tmp_path / "planning.csv")
    assert len(planned) == 2 * 2 * 2
    assert (planned["half_width"] <= planned["wanted"]).all()
    assert planned["patients_with"].tolist() == [math.floor(round(0.3 * n, 9)) for n in planned["patients"]]
    assert planned["images_with"].tolist() == [10 * n for n in planned["patients_with"]]
    row = planned.iloc[-1]
    main([*common, "--icc", ".3", "--patients", str(row["patients"]), "--out", str(tmp_path)])
    back = pd.read_csv(tmp_path / "planning.csv")
    assert back["half_width"].tolist()[-1] == pytest.approx(row["half_width"])
    assert back["textbook_patients"].isna().all()


def test_confidence_comes_from_the_options(tmp_path):
    ask = ["--proportion", ".8", "--half-width", ".05", "--out", str(tmp_path)]
    main([*ask, "--options", '{"accuracy": {"confidence": 0.9}}'])
    found = pd.read_csv(tmp_path / "planning.csv")
    assert found["confidence"].tolist() == [0.9]
    # statsmodels: samplesize_confint_proportion(.8, .05, alpha=.1) is 173.2.
    assert found["textbook_patients"].tolist() == [174]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "nothing to plan"),
        (["--sensitivity", ".9", "--prevalence", ".3"], "--half-width or --lower-limit"),
        (["--proportion", ".9", "--half-width", ".05", "--patients", "9"], "give one of"),
        (["--sensitivity", ".9", "--half-width", ".05"], "--prevalence is needed"),
        (["--sensitivity", "90", "--half-width", ".05", "--prevalence", ".3"], "--sensitivity 90: .*written .9"),
        (["--auc", "1", "--half-width", ".05", "--prevalence", ".3"], "--auc 1: "),
        (["--proportion", ".9", "--half-width", "0"], "--half-width 0: "),
        (["--proportion", ".9", "--half-width", ".05", "--icc", "1.2", "--images", "3"], "--icc 1.2: "),
        (["--proportion", ".9", "--half-width", ".05", "--images", "0"], "--images 0: "),
        (["--proportion", ".9", "--half-width", ".05", "--images", "nan"], "--images nan: "),
        (["--proportion", ".9", "--half-width", ".05", "--images", "3", "--images-cv", "-1"], "--images-cv -1: "),
        (["--proportion", ".9", "--half-width", ".05", "--images", "3"], "such as --icc 0 .1"),
        (["--proportion", ".9", "--lower-limit", ".9"], "not below the expected proportion"),
        (["--sensitivity", ".9", "--patients", "5", "--prevalence", ".3"], "fewer than two patients"),
        (["--proportion", ".9", "--half-width", ".05", "--positive", "yes"], "belong together"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_a_remedy(tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        main([*flags, "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "positive", "message"),
    [
        (lambda d: d.drop(columns="patient_id"), "yes", "no column 'patient_id'"),
        (lambda d: d, "maybe", "no class of the pilot"),
        (lambda d: d[d["truth"] == "no"], "yes", "none are of yes"),
    ],
)
def test_pilots_that_say_nothing(change, positive, message):
    predictions = check_predictions(change(pilot_table()), ["no", "yes"])
    with pytest.raises(UserError, match=message):
        describe_pilot(predictions, [positive])


def test_pilot_of_patients_with_both_kinds_is_warned_of(caplog):
    table = pilot_table()
    describe_pilot(check_predictions(table, ["no", "yes"]), ["yes"])
    assert not caplog.records
    table.loc[[0, 1, 9], "truth"] = (
        "yes"  # images of patients 0 and 2, who have none of the condition otherwise
    )
    describe_pilot(check_predictions(table, ["no", "yes"]), ["yes"])
    assert "2 of the pilot's 24 patients" in caplog.text


def test_pilot_that_cannot_tell_the_correlation(tmp_path):
    pilot = tmp_path / "pilot.csv"
    pilot_table(images=1).to_csv(pilot, index=False)
    ask = ["--sensitivity", ".9", "--half-width", ".1", "--prevalence", ".3", "--out", str(tmp_path / "out")]
    ask += ["--predictions", str(pilot), "--positive", "yes"]
    main(ask)  # one image a patient, planned so: the correlation does not count
    with pytest.raises(UserError, match="the pilot cannot tell it"):
        main([*ask, "--images", "5"])
    labels = tmp_path / "labels.csv"
    pilot_table().assign(predicted="yes").drop(columns=["p_yes", "p_no"]).to_csv(labels, index=False)
    with pytest.raises(UserError, match="labels only"):
        main([*ask[2:], "--auc", ".9", "--predictions", str(labels)])
