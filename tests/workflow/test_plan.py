"""Planning: exact job counts of a fresh study, and errors that a user can mend."""

import re
import shutil

import pytest
import yaml
from project import ROOT, add_cohort, copy_project, planned, replace, snakemake

from marrowflow.config import load_study


@pytest.fixture
def fresh(tmp_path):
    """A project as it is cloned: nothing painted, no weights, nothing run."""
    project = copy_project(tmp_path / "marrowflow")
    for made in [*(project / "resources/demo").glob("*/"), project / "resources/weights"]:
        if made.is_dir():
            shutil.rmtree(made)
    return project


def test_a_fresh_clone_plans_the_whole_demo(fresh):
    assert planned(fresh) == {
        "paint_hospital": 3,
        "fetch_weights": 1,
        "ingest_cohort": 3,
        "correct_cohort": 6,
        "split_patients": 1,
        "plan_augmentation": 3,
        "draw_contact_sheet": 2,
        "check_leakage": 1,
        "check_external": 2,
        "train_fold": 9,
        "predict_development": 3,
        "lock_choices": 3,
        "predict_external": 6,
        "apply_lock": 6,
        "measure_accuracy": 9,
        "choose_primary": 1,
        "compare_index_tests": 3,
        "note_arrival": 2,
        "take_reader": 6,
        "measure_readers": 3,
        "measure_subgroups": 3,
        "pool_hospitals": 1,
        "embed_cohort": 3,
        "measure_shift": 2,
        "explain_cohort": 3,
        "seal_development": 1,
        "package_model": 1,
        "audit_figures": 1,
        "report_cohort": 2,
        "report_study": 1,
        "describe_run": 1,
        "all": 1,
    }


def test_a_published_protocol_doubles_the_folds_and_compares(fresh):
    replace(
        fresh / "config.yaml",
        "  protocol: sound\n",
        "  protocol: as_published\n  as_published: {scheme: holdout, test: 0.25}\n",
    )
    jobs = planned(fresh)
    assert jobs["split_patients"] == 2
    assert jobs["train_fold"] == 3 * (3 + 1)
    assert jobs["compare_protocols"] == 3


def test_developing_reads_nothing_of_an_external_hospital(fresh):
    output = snakemake(fresh, "-n", "--cores", "2", "develop").stdout
    assert "beta" not in output
    assert "gamma" not in output


def test_a_study_without_external_hospitals_plans(fresh):
    table = fresh / "resources/cohorts.tsv"
    table.write_text("".join(line for line in table.open() if "\texternal\t" not in line))
    config = yaml.safe_load((fresh / "config.yaml").read_text())
    config["readers"] = {}
    (fresh / "alone.yaml").write_text(yaml.safe_dump(config))
    jobs = planned(fresh, "--configfile", "alone.yaml")
    assert not jobs.keys() & {
        "predict_external",
        "apply_lock",
        "note_arrival",
        "measure_shift",
        "take_reader",
    }


def test_a_readers_table_of_an_unknown_hospital_stops_before_the_first_job(fresh):
    replace(
        fresh / "config.yaml",
        "{beta: resources/demo/beta/consultant.csv",
        "{betta: resources/demo/beta/consultant.csv",
    )
    message = failure(fresh)
    assert "readers.consultant.table" in message and "did you mean 'beta'" in message


def test_a_required_checklist_with_a_text_missing_stops_before_the_first_job(fresh):
    replace(fresh / "config.yaml", "  require: []\n", "  require: stard\n")
    message = failure(fresh)
    assert "- registration: " in message and "- protocol: " in message and message.count("\n  - ") == 2


def test_no_job_of_a_reader_without_readers(fresh):
    config = yaml.safe_load((fresh / "config.yaml").read_text())
    config["readers"] = {}
    (fresh / "alone.yaml").write_text(yaml.safe_dump(config))
    jobs = planned(fresh, "--configfile", "alone.yaml")
    assert not jobs.keys() & {"take_reader", "measure_readers"}
    assert jobs["report_study"] == 1


def test_one_index_test_is_compared_with_nothing(fresh):
    config = yaml.safe_load((fresh / "config.yaml").read_text())
    del config["models"]["lite0_frozen"]
    (fresh / "one.yaml").write_text(yaml.safe_dump(config))
    jobs = planned(fresh, "--configfile", "one.yaml")
    assert jobs["measure_accuracy"] == 3
    assert "compare_index_tests" not in jobs


# Index tests of each published study, counted by hand from its configuration: networks x modes (or variants) x recipes, and ensembles.
PUBLISHED = {
    # 3 networks x 3 modes x 2 recipes
    "huang2020": {"networks": 18, "ensembles": 0, "development": 3, "external": 0},
    # cnn on 2 recipes, two heads in two profiles on 2, ViT in two profiles on 1; one ensemble on 2
    "bt5153": {"networks": 2 + 8 + 2, "ensembles": 2, "development": 1, "external": 0},
    "bt5153_types": {"networks": 1, "ensembles": 0, "development": 1, "external": 0},
    # one network with three pairs of weights
    "aamds2022": {"networks": 3, "ensembles": 0, "development": 1, "external": 1},
}
FOLDS = 5


@pytest.mark.parametrize("key", PUBLISHED)
@pytest.mark.parametrize("protocol", ["sound", "as_published"])
def test_a_published_study_plans_every_cell_of_its_grid(fresh, key, protocol):
    shape = PUBLISHED[key]
    lines = ["cohort\trole\tmanifest\thospital\tsource"]
    for role in ("development", "external"):
        for i in range(shape[role]):
            manifest = fresh / f"data/{key}/{role}{i}/manifest.csv"
            manifest.parent.mkdir(parents=True)
            manifest.write_text("image,label\n")
            lines.append(f"{role}{i}\t{role}\t{manifest.relative_to(fresh)}\tH\tS")
    # Two studies may share one table.
    table = fresh / yaml.safe_load((fresh / f"resources/studies/{key}.yaml").read_text())["cohorts"]
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("\n".join(lines) + "\n")
    jobs = planned(
        fresh,
        *("--configfile", f"resources/studies/{key}.yaml"),
        *("--config", f'splits={{"protocol": "{protocol}"}}'),
    )
    protocols = 1 + (protocol == "as_published")
    # The published division is one; the sound protocol has five folds.
    folds = FOLDS + (protocol == "as_published")
    tests = shape["networks"] + shape["ensembles"]
    expected = {
        "train_fold": shape["networks"] * folds,
        "predict_development": shape["networks"] * protocols,
        "combine_development": shape["ensembles"] * protocols,
        "lock_choices": tests * protocols,
        "predict_external": shape["networks"] * protocols * shape["external"],
        "apply_lock": tests * protocols * shape["external"],
        "measure_accuracy": tests * protocols * (1 + shape["external"]),
        "compare_protocols": tests * (protocols - 1),
        "choose_primary": 1,
    }
    assert {name: jobs.get(name, 0) for name in expected} == expected


@pytest.mark.parametrize("study", sorted((ROOT / "resources/studies").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_studys_file_is_complete_by_itself(fresh, study):
    """Nothing of the demo's configuration shines through: the plan has the study's own models only."""
    config = yaml.safe_load(study.read_text())
    config["cohorts"] = "resources/cohorts.tsv"
    for model in config.get("models", {}).values():
        if "/" in model.get("weights", ""):
            model["weights"] = "resources/weights/tf_efficientnet_lite0.safetensors"
    path = fresh / "study.yaml"
    path.write_text(yaml.safe_dump(config))
    output = snakemake(fresh, "-n", "--cores", "2", "--configfile", "study.yaml").stdout
    own = load_study(config)
    assert set(re.findall(r"model=(\w+)", output)) == {*own.networks, *own.ensembles}


def failure(project, *arguments):
    done = snakemake(project, "-n", "--cores", "2", *arguments, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    return done.stdout


def test_a_typo_in_the_configuration_names_the_nearest_key(fresh):
    replace(fresh / "config.yaml", "  folds: 3\n", "  flods: 3\n")
    assert "splits.flods: unknown key. Did you mean 'folds'?" in failure(fresh)


def test_a_wrong_cohort_line_names_file_row_and_remedy(fresh):
    add_cohort(fresh, "delta\textern\tresources/demo/delta/manifest.csv\tD\tpainted\n")
    message = failure(fresh)
    assert "cohorts.tsv" in message
    assert "extern" in message


def test_a_configuration_without_its_study_is_refused_and_not_mixed_with_the_demo(fresh):
    (fresh / "mine.yaml").write_text("classes: [a, b]\nmodels: {mine: {network: resnet18}}\n")
    assert "study: this key is needed and not given" in failure(fresh, "--configfile", "mine.yaml")


def test_braces_in_a_title_are_only_braces(fresh):
    replace(fresh / "config.yaml", '  title: "Diagnosis of', '  title: "Diagnosis {of}')
    assert planned(fresh)["report_study"] == 1


def test_a_path_is_never_run_by_the_shell(fresh):
    folder = fresh / "my $(touch run) images"
    folder.mkdir()
    (folder / "manifest.csv").write_text("image,label\n")
    add_cohort(fresh, f"delta\texternal\t{folder.name}/manifest.csv\tD\tpainted\n")
    done = snakemake(fresh, "--cores", "1", "results/demo/cohorts/delta/inventory.parquet", check=False)
    assert "manifest.csv" in done.stdout
    assert "no row follows the header" in done.stdout
    assert not (fresh / "run").exists()


def test_a_missing_manifest_is_named(fresh):
    add_cohort(fresh, "delta\texternal\tnowhere/manifest.csv\tD\tpainted\n")
    assert "nowhere/manifest.csv" in failure(fresh)


def test_a_missing_weight_file_is_named(fresh):
    path = fresh / "config.yaml"
    path.write_text(
        path.read_text().replace("resources/weights/tf_efficientnet_lite0", "resources/weights/mine")
    )
    assert "resources/weights/mine.safetensors" in failure(fresh)
