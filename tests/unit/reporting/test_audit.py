"""The audit on the five source studies, on other people's tables, and on our own."""

import json
from pathlib import Path

import pandas as pd
import pytest

from marrowflow.errors import UserError
from marrowflow.reporting.audit import Figures, audit_figures, main, read_figures

AUDITS = Path(__file__).parents[3] / "resources/audits"


def found(study):
    return {f.what: f for f in audit_figures(read_figures(AUDITS / f"{study}.yaml"))}


def one(**check):
    return audit_figures(Figures(source="test", checks=[check]))[0]


# What studies.md says of the five publications; its arithmetic was done by hand.


def test_huang2020_has_an_accuracy_that_is_no_share_of_its_331_images_but_the_mean_of_four_recalls():
    findings = found("huang2020")
    assert not findings["DenseNet121, fine-tuned, accuracy"].fits
    assert "315/331" in findings["DenseNet121, fine-tuned, accuracy"].words
    assert findings["DenseNet121, fine-tuned, accuracy from the four recalls"].fits
    assert findings["DenseNet121, frozen, accuracy"].fits  # 281/331 = .8489
    assert not findings["patients"].fits
    assert findings["images"].fits


def test_zhou2021_has_figures_that_24_and_25_patients_cannot_give():
    finding = found("zhou2021")["ALL by more than 20 % lymphoblasts"]
    assert not finding.fits
    # .86 · 24 = 20.6, .95 · 25 = 23.75, .89 · 49 = 43.6: none near enough to a whole number
    for share in ("no k/24", "no k/25", "no k/49", "TP 20, FN 4, TN 24, FP 1"):
        assert share in finding.words


def test_wang2022_left_the_healthy_images_out():
    findings = found("wang2022")
    assert not findings["accuracy on all of ALL-IDB1"].fits
    assert "47/49" in findings["accuracy on the leukaemia images of ALL-IDB1"].words
    assert findings["slides of the first hospital"].fits


def test_bt5153_adds_up_and_its_weighted_recall_is_accuracy():
    findings = found("bt5153")
    assert all(f.fits for f in findings.values())
    words = findings["accuracy from the five recalls"].words
    # Rounded recalls leave ± .00005 open around .7353 and .7740.
    assert "plain (macro) mean 0.7352 to 0.7353, does not fit" in words
    assert "mean weighted by n (micro) 0.7739 to 0.7740, fits" in words


def test_aamds2022_counts_augmented_images_as_patients():
    findings = found("aamds2022")
    assert not findings["AUC for MDS, by smears"].fits
    assert "21.3 times" in findings["AUC for MDS, by smears"].words
    assert not findings["sensitivity for MDS in 32 smears"].fits


def test_figures_of_one_table_fit():
    # STARD's 2×2 of statistics.md: TP 670, FP 202, FN 74, TN 640.
    finding = one(
        two_by_two={
            "of": "x", "present": 744, "absent": 842, "sensitivity": ".9005", "specificity": ".7601", "ppv": ".7683", "npv": ".8964",
        }
    )  # fmt: skip
    assert finding.fits
    assert "TP 670, FN 74, TN 640, FP 202" in finding.words


@pytest.mark.parametrize(
    ("low", "high", "method"),
    [
        ("87.68 %", "92.11 %", None),
        ("87.67 %", "92.11 %", "Clopper–Pearson"),
        ("87.69 %", "92.00 %", "Wilson"),
    ],
)
def test_the_method_of_an_interval_is_recognised(low, high, method):
    """670/744, limits by epiR: exact .87674617680–.9210922996, Wilson .87693191250–.9200284498."""
    finding = one(interval={"of": "x", "printed": "90.05 %", "low": low, "high": high, "n": 744})
    assert finding.fits == (method is not None)
    assert (method or "no Wald, Wilson or Clopper") in finding.words


def test_an_interval_of_too_many_units_tells_how_many():
    # Wald at n = 5000, for a share of 100: half width 1.96 √(.9 · .1/5000) = .0083
    finding = one(interval={"of": "x", "printed": ".90", "low": ".8917", "high": ".9083", "n": 100})
    assert not finding.fits
    assert 4900 < float(finding.words.rpartition("about ")[2].split()[0]) < 5100


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("checks: []", "source"),
        ("source: x\nchecks: [{share: {of: a, printed: '1', n: 0}}]", "n"),
        ("source: x\nchecks: [{shares: {of: a}}]", "shares"),
        ("source: x\nchecks: [{}]", "one of share"),
        ("source: x\nchecks: [{share: {of: a, printed: abc, n: 3}}]", "quotation marks"),
        ("source: x\nchecks: [{interval: {of: a, printed: '.9', low: '.8', high: '.95'}}]", "present"),
        ("a: [", "YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(tmp_path, text, words):
    path = tmp_path / "f.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        main(["--figures", str(path)])


def test_the_command_prints_every_check_and_ends_with_1_when_one_does_not_fit(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["--figures", str(AUDITS / "huang2020.yaml"), "--out", str(tmp_path / "a.json")])
    assert ended.value.code == 1
    assert "95.3 % is no k/331" in capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text())["checks"] == 7
    main(["--figures", str(AUDITS / "bt5153.yaml")])


# Our own tables


def tables(folder, **changes):
    """Ten patients, five with the condition: TP 4, FN 1, TN 3, FP 2."""
    rows = {
        "sensitivity": (4, 5),
        "specificity": (3, 5),
        "ppv": (4, 6),
        "npv": (3, 4),
        "accuracy": (7, 10),
    } | changes
    metrics = pd.DataFrame(
        [
            {
                "endpoint": "AML", "metric": name, "class": "", "unit": "patient", "estimate": k / n, "low": 0.0, "high": 1.0,
                "method": "wilson_neff", "primary": True, "n_cases": 10, "n_patients": 10, "numerator": k, "denominator": n,
            }
            for name, (k, n) in rows.items()
        ]
    )  # fmt: skip
    cells = [
        ("AML", "positive", 4),
        ("AML", "negative", 1),
        ("healthy", "positive", 2),
        ("healthy", "negative", 3),
        ("missing", "positive", 9),
    ]
    confusion = pd.DataFrame(cells, columns=["truth", "predicted", "n"]).assign(
        endpoint="AML", unit="patient"
    )
    folder.mkdir(parents=True, exist_ok=True)
    metrics.to_csv(folder / "metrics.csv", index=False)
    confusion.to_csv(folder / "confusion.csv", index=False)
    return metrics


def test_tables_that_fit_pass(tmp_path, capsys):
    tables(tmp_path / "sound")
    main(["--accuracy", str(tmp_path), "--out", str(tmp_path / "audit.json")])
    assert json.loads((tmp_path / "audit.json").read_text()) == {"checks": 9, "findings": []}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"accuracy": (8, 10)}, "8/10 here, and 7/10 by the cross-tabulation"),
        ({"npv": (3, 5)}, "3/5 here, and 3/4 by the cross-tabulation"),
        ({"specificity": (2, 5)}, "2/5 here, and 3/5"),
    ],
)
def test_a_share_that_contradicts_the_cross_tabulation_stops_the_run(tmp_path, changes, words):
    tables(tmp_path, **changes)
    with pytest.raises(UserError, match=words):
        main(["--accuracy", str(tmp_path), "--out", str(tmp_path / "audit.json")])
    assert not (tmp_path / "audit.json").exists()


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("estimate", 0.81, "0.81 is not 4/5"),
        ("numerator", 3.5, "no share of whole units"),
        ("low", 0.9, "lies outside"),
        ("n_patients", 11, "11 patients of 10 cases"),
    ],
)
def test_a_row_that_contradicts_itself_is_found(tmp_path, column, value, words):
    metrics = tables(tmp_path)
    metrics[column] = metrics[column].astype(float)
    metrics.loc[0, column] = value
    metrics.to_csv(tmp_path / "metrics.csv", index=False)
    with pytest.raises(UserError, match=words):
        main(["--accuracy", str(tmp_path)])


def test_an_empty_folder_is_no_study(tmp_path):
    with pytest.raises(UserError, match=r"no metrics\.csv"):
        main(["--accuracy", str(tmp_path)])
    with pytest.raises(UserError, match="no folder"):
        main(["--accuracy", str(tmp_path / "nowhere")])


def test_a_table_that_is_missing_beside_its_cross_tabulation_is_a_finding(tmp_path):
    tables(tmp_path / "a")
    tables(tmp_path / "b")
    (tmp_path / "b/metrics.csv").unlink()
    with pytest.raises(UserError, match=r"b/metrics\.csv: metrics\.csv is missing"):
        main(["--accuracy", str(tmp_path)])


def test_files_may_be_named_one_by_one_so_that_others_do_not_count(tmp_path, capsys):
    tables(tmp_path / "a")
    tables(tmp_path / "removed", accuracy=(8, 10))
    main(["--accuracy", str(tmp_path / "a/metrics.csv")])
    assert "9 checks, 0 do not fit" in capsys.readouterr().out


def test_a_figure_that_cannot_be_read_is_named_by_its_check(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text(
        "source: x\nchecks: [{share: {of: a, printed: '1', n: 3}}, {share: {of: b, printed: 'no', n: 3}}]"
    )
    with pytest.raises(UserError, match="check 2"):
        main(["--figures", str(path)])
