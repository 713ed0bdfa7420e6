"""Figures are called what they show, by the names of their files."""

from types import SimpleNamespace

import pytest

from marrowflow.reporting.figure_labels import figure_labels, labels_of

HOSPITALS = {"beta": "Hospital B", "beta_2": "Hospital B, second year"}


@pytest.mark.parametrize(
    ("figure", "labels"),
    [
        ("roc_beta_leukaemia_patient", ("ROC curve", "Hospital B", "leukaemia", "patients", "sound")),
        (
            "roc_beta_2_classes_case",
            ("ROC curve", "Hospital B, second year", "all classes", "images", "sound"),
        ),
        (
            "predictive_values_beta_a_b_patient",
            ("predictive values", "Hospital B", "a_b", "patients", "sound"),
        ),
        (
            "pr_development_classes_patient_as_published",
            (
                "precision-recall curve",
                "development, out of fold",
                "all classes",
                "patients",
                "as published, leaky",
            ),
        ),
        ("flow_beta", ("flow of patients", "Hospital B", "–", "–", "sound")),
        ("shift_colour_beta", ("shift of colour", "Hospital B", "–", "–", "sound")),
        ("subgroups_beta_leukaemia_auc", ("subgroups", "Hospital B", "leukaemia_auc", "–", "sound")),
        ("forest", ("forest plot", "–", "–", "–", "sound")),
        ("forest_as_published", ("forest plot", "–", "–", "–", "as published, leaky")),
        ("curves_m-raw", ("training curves", "–", "m-raw", "–", "sound")),
        ("new_kind_of_thing", ("new kind of thing", "–", "–", "–", "sound")),
        ("rocket", ("rocket", "–", "–", "–", "sound")),
    ],
)
def test_labels(figure, labels):
    assert tuple(labels_of(figure, HOSPITALS).values()) == labels


def test_labels_of_wildcards_are_those_of_the_figure():
    wildcards = SimpleNamespace(figure="flow_beta", cohort="beta")
    assert figure_labels(HOSPITALS)(wildcards) == labels_of("flow_beta", HOSPITALS)
