"""The configuration refuses what it cannot mean, and says which key was meant."""

import json
import re
from pathlib import Path

import pytest
import yaml

from marrowflow import reference
from marrowflow.config import Study, load_study, read_study
from marrowflow.errors import UserError
from marrowflow.option_strings import derived_sections, option_string, scheme_of

ROOT = Path(__file__).parents[2]
SMALLEST = {
    "study": {"key": "small", "title": "A small study"},
    "classes": ["healthy", "AML"],
    "models": {"net": {"network": "resnet18"}},
}


def changed(**sections):
    return {**SMALLEST, **sections}


def test_the_smallest_study_takes_its_defaults():
    study = load_study(SMALLEST)
    assert study.splits.protocol == "sound"
    assert study.index_tests == ["net-raw"]
    assert study.fold_names == {"sound": ["0", "1", "2", "3", "4"]}


@pytest.mark.parametrize(
    ("sections", "place", "nearest"),
    [
        ({"splitts": {}}, "splitts", "splits"),
        ({"splits": {"fold": 3}}, "splits.fold", "folds"),
        ({"models": {"net": {"network": "x", "mod": "frozen"}}}, "models.net.mod", "mode"),
        (
            {"models": {"net": {"network": "x", "training": {"epoch": 3}}}},
            "models.net.training.epoch",
            "epochs",
        ),
        ({"colour": {"raw": {"metod": "none"}}}, "colour.raw.metod", "method"),
        (
            {"splits": {"protocol": "as_published", "as_published": {"shceme": "kfold"}}},
            "splits.as_published.shceme",
            "scheme",
        ),
    ],
)
def test_an_unknown_key_is_named_with_its_place_and_the_nearest_known_one(sections, place, nearest):
    with pytest.raises(UserError) as refused:
        load_study(changed(**sections))
    assert f"{place}: unknown key. Did you mean {nearest!r}?" in str(refused.value)


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"classes": ["healthy"]}, "classes"),
        ({"classes": ["healthy", "healthy"]}, "stands twice"),
        ({"classes": ["healthy", "missing"]}, "reserved"),
        ({"classes": ["healthy", "Not_done"]}, "reserved for cases without an answer"),
        ({"classes": ["AML", "aml"]}, "small and capital letters alike"),
        ({"classes": ["healthy", "macro"]}, "averages"),
        ({"classes": ["healthy", "NaN"]}, "reads like a missing value"),
        ({"classes": ["healthy", "AML "]}, "ends in a space"),
        ({"models": {"net": {"network": "x", "colours": []}}}, "models.net.colours"),
        ({"splits": {"scheme": "holdout", "validation": 0}}, "validation: 0 leaves none"),
        ({"endpoints": {"any": {"positive": ["AMLL"]}}}, "did you mean 'AML'?"),
        ({"endpoints": {"any": {"positive": ["AML", "healthy"]}}}, "nothing is left to be negative"),
        (
            {"models": {"net": {"network": "x", "colours": ["corrected"]}}},
            "'corrected' is not one of ['raw']",
        ),
        (
            {"models": {"net": {"network": "x", "mode": "frozen", "weights": "none"}}},
            "starts from given weights",
        ),
        ({"models": {"net": {"network": "x", "mode": "scratch", "weights": "a.pth"}}}, "random weights"),
        ({"models": {"my-net": {"network": "x"}}}, "my-net"),
        ({"splits": {"protocol": "as_published"}}, "needs a section as_published"),
        ({"splits": {"folds": 1}}, "2 or more"),
        ({"splits": {"folds": "five"}}, "found 'five'"),
        ({"threshold": {"rule": "sensitivity"}}, "value:"),
        ({"augmentation": {"plan": "balanced", "targets": {"CML": 3}}}, "'CML' is not one of"),
        ({"report": {"primary": "net-corrected"}}, "'net-corrected' is not one of ['net-raw']"),
        ({"report": {"primary": "net-raw", "choose": {}}}, "keep one of them"),
        (
            {"report": {"choose": {"endpoint": "aml"}}},
            "report.choose.endpoint: 'aml' is not one of ['classes']",
        ),
        ({"report": {"choose": {}}, "endpoints": {"aml": {"positive": ["AML"]}}}, "is not one of ['aml']"),
        ({"report": {"choose": {}}, "splits": {"scheme": "holdout"}}, "must choose nothing"),
        ({"endpoints": {"classes": {"positive": ["AML"]}}}, "classification into all classes"),
        (
            {"models": {"net": {"network": "x", "colours": ["raw", "raw"]}}},
            "models.net.colours: a name stands twice",
        ),
        ({"models": {"net": {"network": "x", "head": "one_vs_rest"}}}, "the same question twice"),
        ({"training": {"rate": float("inf")}}, "training.rate"),
        ({"training": {"class_weights": "balanced", "batches": "balanced"}}, "keep one of them"),
        (
            {"published": [{"index_test": "net-raw", "metric": "auc", "value": float("nan")}]},
            "published.0.value",
        ),
        (
            {"published": [{"index_test": "net-raw", "metric": "auc", "value": 0.9, "low": 0.8}]},
            "an interval has two ends",
        ),
        (
            {
                "published": [
                    {"index_test": "net-raw", "metric": "auc", "value": 0.9, "low": 0.95, "high": 0.8}
                ]
            },
            "does not lie in its interval",
        ),
        (
            {"grid": {"networks": {"r": {"network": "x"}}, "modes": {"frozen": {"mode": "finetune"}}}},
            "grid.modes.frozen: mode:",
        ),
        (
            {"grid": {"networks": {"r": {"network": "x"}}, "modes": ["frozen", "frozen"]}},
            "a mode stands twice",
        ),
        (
            {"grid": {"networks": {"r": {"network": "x", "training": "fast"}}, "modes": ["frozen"]}},
            "grid.networks.r.training",
        ),
        ({"training": {"seed": -1}}, "training.seed"),
        (
            {"grid": {"networks": {"r": {"network": "x", "mode": "scratch"}}, "modes": ["frozen"]}},
            "grid.networks.r: mode:",
        ),
        (
            {"grid": {"networks": {"r": {"network": "x"}}, "modes": ["frozen"], "seeds": [1, 1]}},
            "a seed stands twice",
        ),
        (
            {
                "grid": {
                    "networks": {"r": {"network": "x"}, "r_frozen": {"network": "y"}},
                    "modes": ["frozen"],
                    "variants": {"a": {}, "frozen_a": {}},
                }
            },
            "two cells would be called 'r_frozen_frozen_a'",
        ),
        ({"models": {}}, "models"),
        ({"grid": {"networks": {"r": {"network": "x"}}, "modes": ["frozn"]}}, "grid.modes"),
        ({"grid": {"networks": {"r": {"netwrk": "x"}}, "modes": ["frozen"]}}, "models.r_frozen.netwrk"),
        ({"grid": {"networks": "resnet50", "modes": ["frozen"]}}, "grid.networks"),
        ({"ensembles": {"both": {"members": ["net", "nett"]}}}, "did you mean 'net'?"),
        ({"ensembles": {"both": {"members": ["n*"]}}}, "an ensemble of 'net' alone is that model"),
        ({"models": {"net": {"network": "x", "profile": "as_published"}}}, "the networks bt5153/… only"),
        (
            {"models": {"net": {"network": "x", "heads": {"diagnosis": 1, "mds": 1}}}},
            "models.net.heads: 'mds'",
        ),
        (
            {
                "endpoints": {"aml": {"positive": ["AML"]}},
                "models": {"net": {"network": "x", "heads": {"aml": 1}}},
            },
            "give diagnosis: a weight too",
        ),
        (
            {
                "classes": ["healthy", "AML", "ALL"],
                "models": {"net": {"network": "x", "head": "one_vs_rest", "heads": {"diagnosis": 1}}},
            },
            "one class each",
        ),
        ({"augmentation": {"plan": "balanced", "targets_of": "types", "targets": {"BLA": 3}}}, "label_map:"),
        ({"published": [{"index_test": "net", "metric": "auc", "value": 1}]}, "did you mean 'net-raw'?"),
        ({"assumed": {"training.rat": "not given"}}, "did you mean 'rate'?"),
        (
            {
                "splits": {
                    "protocol": "as_published",
                    "as_published": {"scheme": "kfold", "augmented": True},
                }
            },
            "goes with scheme: holdout",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(sections, complaint):
    with pytest.raises(UserError, match=re.escape(complaint)):
        load_study(changed(**sections))


def test_all_problems_are_told_at_once():
    with pytest.raises(UserError) as refused:
        load_study(changed(splits={"fold": 3}, training={"epocs": 2}))
    assert "splits.fold" in str(refused.value)
    assert "training.epocs" in str(refused.value)


def test_a_bare_off_in_yaml_turns_augmentation_off():
    assert load_study(changed(augmentation=yaml.safe_load("plan: off"))).augmentation.plan == "off"


GRID = {
    "networks": {"res": {"network": "resnet50", "weights": "a.pth"}, "dense": {"network": "densenet121"}},
    "modes": {"scratch": {}, "frozen": {"training": {"rate": 0.5}}},
}


def test_a_grid_is_every_network_in_every_mode():
    study = load_study({**SMALLEST, "models": {}, "training": {"epochs": 3}, "grid": GRID})
    assert list(study.models) == ["res_scratch", "res_frozen", "dense_scratch", "dense_frozen"]
    cell = study.models["res_frozen"]
    assert (cell.network, cell.mode, cell.weights) == ("resnet50", "frozen", "a.pth")
    assert (cell.training.epochs, cell.training.rate) == (3, 0.5)
    assert study.models["res_scratch"].weights == "imagenet"  # the file is for modes that start from it


def test_seeds_and_variants_of_a_grid_are_cells_with_names_of_their_own():
    study = load_study(
        changed(
            endpoints={"aml": {"positive": ["AML"]}},
            grid={
                "networks": {"res": {"network": "resnet50"}},
                "modes": ["finetune"],
                "variants": {
                    "w19": {"heads": {"aml": 0.1, "diagnosis": 0.9}},
                    "w55": {"heads": {"aml": 0.5, "diagnosis": 0.5}},
                },
                "seeds": [0, 7],
                "colours": ["raw"],
            },
        )
    )
    assert list(study.models) == [
        "res_finetune_w19_seed0",
        "res_finetune_w19_seed7",
        "res_finetune_w55_seed0",
        "res_finetune_w55_seed7",
        "net",
    ]
    cell = study.models["res_finetune_w55_seed7"]
    assert (cell.training.seed, cell.heads["aml"], cell.colours) == (7, 0.5, ["raw"])
    heads = json.loads(option_string(study, ["heads"], {"model": "res_finetune_w19_seed0"}))["heads"]
    assert heads == {
        "aml": {"weight": 0.1, "positive": ["AML"]},
        "diagnosis": {"weight": 0.9, "positive": None},
    }


def test_a_model_that_is_listed_takes_the_place_of_its_cell():
    study = load_study(changed(models={"res_frozen": {"network": "resnet18"}}, grid=GRID))
    assert len(study.models) == 4
    assert study.models["res_frozen"].network == "resnet18"


def test_a_study_that_was_spelt_out_means_the_same_again():
    study = load_study({**SMALLEST, "grid": GRID})
    assert load_study(study.model_dump(mode="json")) == study


def test_an_ensemble_is_an_index_test_on_the_colours_that_its_members_share():
    study = load_study(
        changed(
            colour={"raw": {}, "corrected": {"method": "reflection_median"}},
            models={
                "a1": {"network": "x"},
                "a2": {"network": "y", "colours": ["raw"]},
                "b": {"network": "z"},
            },
            ensembles={"mean": {"members": ["a*"]}},
        )
    )
    assert study.members_of("mean") == ["a1", "a2"]
    assert study.index_tests == ["a1-raw", "a1-corrected", "a2-raw", "b-raw", "b-corrected", "mean-raw"]


def test_a_licence_retrains_nothing():
    job = {"model": "net"}
    plain, licensed = (
        load_study(changed(models={"net": {"network": "x", "licence": text}})) for text in ("", "MIT")
    )
    assert option_string(plain, ["model"], job) == option_string(licensed, ["model"], job)


def test_a_model_takes_the_studys_training_and_overrides_a_part():
    study = load_study(
        changed(
            training={"epochs": 7, "rate": 0.5},
            models={"net": {"network": "x", "training": {"epochs": 2}}, "other": {"network": "y"}},
        )
    )
    assert (study.models["net"].training.epochs, study.models["net"].training.rate) == (2, 0.5)
    assert study.models["other"].training.epochs == 7


def test_the_primary_index_test_stands_first():
    study = load_study(
        changed(
            colour={"raw": {}, "corrected": {"method": "reflection_median"}},
            models={"a": {"network": "x"}, "b": {"network": "y", "colours": ["corrected"]}},
            report={"primary": "b-corrected"},
        )
    )
    assert study.index_tests == ["b-corrected", "a-raw", "a-corrected"]


def test_swapped_values_give_another_option_string():
    def training(dropout, decay):
        study = load_study(changed(training={"dropout": dropout, "weight_decay": decay}))
        return option_string(study, ["model"], {"model": "net"})

    assert training(0.1, 0.2) != training(0.2, 0.1)
    assert training(0.1, 0.2) == training(0.1, 0.2)


def test_an_option_string_holds_only_what_is_asked_for_and_ignores_the_order_of_keys():
    one = load_study(changed(splits={"folds": 3, "seed": 1}))
    two = load_study({**changed(splits={"seed": 1, "folds": 3}), "training": {"epochs": 99}})
    assert option_string(one, ["splits"], {}) == option_string(two, ["splits"], {})
    assert set(json.loads(option_string(one, ["splits", "distance"], {}))) == {"splits", "distance"}


def test_editing_one_model_leaves_the_others_option_string():
    models = {"a": {"network": "x"}, "b": {"network": "y"}}
    before = load_study(changed(models=models))
    after = load_study(changed(models={**models, "b": {"network": "y", "input_size": 64}}))
    for model, same in (("a", True), ("b", False)):
        strings = {option_string(study, ["model"], {"model": model}) for study in (before, after)}
        assert (len(strings) == 1) is same


def test_another_colour_recipe_leaves_the_option_strings_of_the_first():
    colours = {"raw": {}, "corrected": {"method": "reflection_median"}}
    one = load_study(changed(colour=colours, models={"net": {"network": "x", "colours": ["raw"]}}))
    two = load_study(
        changed(colour=colours, models={"net": {"network": "x", "colours": ["raw", "corrected"]}})
    )
    job = {"model": "net", "colour": "raw"}
    assert option_string(one, ["model", "recipe"], job) == option_string(two, ["model", "recipe"], job)


def test_a_published_split_beside_the_sound_one_leaves_the_sound_option_string():
    sound = load_study(changed(splits={"folds": 3}))
    both = load_study(changed(splits={"folds": 3, "protocol": "as_published", "as_published": {"test": 0.3}}))
    other = load_study(
        changed(splits={"folds": 4, "protocol": "as_published", "as_published": {"test": 0.3}})
    )
    job = {"protocol": "sound"}
    assert option_string(sound, ["splits"], job) == option_string(both, ["splits"], job)
    job = {"protocol": "as_published"}
    assert option_string(both, ["splits"], job) == option_string(other, ["splits"], job)


def test_materialising_pictures_is_no_reason_to_retrain():
    strings = {
        option_string(load_study(changed(augmentation={"materialise": wanted})), ["augmentation"], {})
        for wanted in (True, False)
    }
    assert len(strings) == 1


def test_every_derived_section_and_scheme_is_known():
    study = load_study(
        changed(splits={"protocol": "as_published", "as_published": {"scheme": "column", "column": "set"}})
    )
    assert derived_sections(study)["protocols"] == ["as_published", "sound"]
    assert [scheme_of(study, p) for p in study.splits.protocols] == ["column", "kfold"]
    assert study.fold_names == {"as_published": ["0"], "sound": ["0", "1", "2", "3", "4"]}


@pytest.mark.parametrize("path", [ROOT / "config.yaml", *sorted((ROOT / "resources/studies").glob("*.yaml"))])
def test_every_configuration_that_we_ship_is_valid(path):
    assert read_study(path).index_tests


def test_the_demo_comments_every_key():
    """A comment stands above each key of config.yaml, beside it, or above the list it opens."""
    bare = []
    lines = (ROOT / "config.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        key = re.match(r"^( {0,2})(\w+):", line)
        if key and not key[1] and not line.rstrip().endswith(":"):
            above = lines[number - 1].strip()
            if not above.startswith("#") and "#" not in line:
                bare.append(line)
    assert not bare


def test_schema_and_reference_are_what_the_models_make():
    assert (ROOT / "resources/config.schema.json").read_text() == reference.json_schema(), "run `make docs`"
    assert (ROOT / "docs/configuration.md").read_text() == reference.markdown(), "run `make docs`"


def test_the_reference_explains_every_key():
    for line in reference.markdown().splitlines():
        if line.startswith("| `"):
            assert not line.rstrip().endswith("|  |"), f"a key without a sentence: {line}"


def test_no_configuration_key_is_missing_from_the_reference():
    text = reference.markdown()

    def keys(model, seen):
        for name, field in model.model_fields.items():
            seen.add(name)
            for part in re.findall(r"config\.(\w+)", str(field.annotation)):
                import marrowflow.config as module

                section = getattr(module, part)
                if hasattr(section, "model_fields"):
                    keys(section, seen)
        return seen

    for key in keys(Study, set()):
        assert f"| `{key}` |" in text


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"subgroups": {"columns": ["patient_id"]}}, "makes no groups of patients"),
        ({"subgroups": {"columns": ["sex", "sex"]}}, "stands twice"),
        ({"subgroups": {"columns": [" sex"]}}, "makes no groups of patients"),
        ({"subgroups": {"age_bands": [40, 18]}}, "ascending"),
        ({"subgroups": {"age_bands": [0, 18]}}, "positive"),
        ({"readers": {"net": {"table": "a.csv"}}}, "a model or an ensemble has this name"),
        ({"readers": {"dr": {"table": "a.csv", "unit": "patient"}}, "units": ["case"]}, "counts no patients"),
        ({"study": {"key": "s", "title": "t", "intended_prevalence": {"aml": 0.5}}}, "'aml' is not one of"),
        ({"report": {"require": "starrd"}}, "stard"),
        ({"recruitment": {"base": "x"}}, "basis"),
    ],
)
def test_what_reports_cannot_be_made_of_is_refused_before_the_run(sections, words):
    with pytest.raises(UserError, match=re.escape(words)):
        load_study(changed(**sections))


def test_one_required_checklist_is_a_list_of_one():
    assert load_study(changed(report={"require": "stard"})).report.require == ["stard"]


def test_which_files_hold_a_readers_answers_is_told_to_no_report():
    """So that answers for one hospital leave the other hospitals' reports as they were."""
    before = load_study(changed(readers={"dr": {"table": {"b": "b.csv"}, "title": "T"}}))
    after = load_study(changed(readers={"dr": {"table": {"b": "b.csv", "c": "c.csv"}, "title": "T"}}))
    names = ["reader_titles", "reader_units"]
    assert option_string(before, names, {}) == option_string(after, names, {})
    assert json.loads(option_string(before, names, {}))["reader_titles"] == {
        "dr": {"title": "T", "unit": "case"}
    }
