"""A package applied by itself answers as the workflow does, and a package that was changed answers nothing."""

import json
import os
import py_compile
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from packed_study import (
    CLASSES,
    ENDPOINTS,
    INDEX_TEST,
    Packed,
    predicted_by_the_workflow,
    write_hospital,
)

from marrowflow.config import ColourRecipe, Images
from marrowflow.errors import UserError
from marrowflow.files import sha256_of
from marrowflow.images import fitted
from marrowflow.learning import apply, bundle
from marrowflow.step_log import Terminated, ending_in_order

P = [f"p_{name}" for name in CLASSES]


@pytest.fixture(scope="module")
def applied(packed: Packed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package applied to the second hospital, with every way to a network closed."""
    out = tmp_path_factory.mktemp("applied") / "results"

    def closed(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto", "bind"):
            patch.setattr(socket.socket, name, closed)
        patch.setattr(socket, "getaddrinfo", closed)
        apply.main(arguments(packed, packed.manifest, out))
    return out


def arguments(packed: Packed, manifest: Path, out: Path, package: Path | None = None) -> list[str]:
    return [
        "--package",
        str(package or packed.package),
        "--manifest",
        str(manifest),
        "--out",
        str(out),
        "--cohort",
        "b",
    ]


@pytest.fixture
def other(packed: Packed, tmp_path: Path) -> Path:
    """A copy of the package that a test may change."""
    return Path(shutil.copytree(packed.package, tmp_path / "package"))


def test_answers_are_the_workflows_bit_for_bit(packed: Packed, applied: Path) -> None:
    expected = predicted_by_the_workflow(packed, "b")
    assert (applied / "predictions.parquet").read_bytes() == expected.read_bytes()
    inventory = packed.file("cohorts/b/inventory.parquet")
    assert (applied / "inventory.parquet").read_bytes() == inventory.read_bytes()
    table, text = (
        pd.read_parquet(expected),
        pd.read_csv(applied / "predictions.csv", float_precision="round_trip"),
    )
    np.testing.assert_array_equal(table[P], text[P])
    assert len(table) == 11
    assert table["truth"].tolist() == [CLASSES[i % 3] for i in range(12) if i != 2]
    assert set(table["index_test"]) == {INDEX_TEST}


def test_patients_have_the_mean_of_their_images_at_the_locked_cutoff(packed: Packed, applied: Path) -> None:
    lock = json.loads(packed.file("locked/sound/both/stained/threshold.json").read_text())["endpoints"][
        "warm"
    ]
    table = pd.read_parquet(applied / "predictions.parquet")
    patients = pd.read_csv(applied / "patients.csv").set_index("patient_id")
    # 13 images of patients p0 to p6; the cut file is of p2, the treated patient is p6.
    assert patients.index.tolist() == [f"b/p{i}" for i in range(7)]
    assert patients["n_images"].tolist() == [2, 2, 1, 2, 2, 2, 0]
    assert patients["n_excluded"].tolist() == [0, 0, 1, 0, 0, 0, 1]
    for name, rows in table.groupby("patient_id"):
        score = (rows["p_red"] + rows["p_green"]).mean()
        assert patients.loc[name, "warm_score"] == pytest.approx(score, abs=1e-15)
        expected = "positive" if score >= lock["patient"]["threshold"] else "negative"
        assert patients.loc[name, "warm_result"] == expected
        assert patients.loc[name, "predicted"] == CLASSES[rows[P].mean().to_numpy().argmax()]
    assert patients.loc["b/p6", "warm_result"] == apply.NO_IMAGE
    assert np.isnan(patients.loc["b/p6", "warm_score"])
    images = pd.read_csv(applied / "images.csv")
    assert images["image"].tolist() == [f"images/{i:03}.png" for i in range(13)]
    assert set(images["warm_cutoff"]) == {lock["case"]["threshold"]}
    assert images["warm_result"][[2, 12]].tolist() == [apply.NO_IMAGE] * 2


def test_both_results_occur_and_no_cutoff_is_said() -> None:
    table = pd.DataFrame(
        {
            "case_id": ["b/1", "b/2"],
            "patient_id": ["b/x", "b/y"],
            "p_red": [0.9, 0.2],
            "p_green": [0.0, 0.1],
            "p_blue": [0.1, 0.7],
        }
    )
    inventory = table[["case_id", "patient_id"]].assign(image=["1", "2"])
    lock = {
        "calibration": {"heads": {}},
        "endpoints": {"warm": {**ENDPOINTS["warm"], "patient": None, "case": {"threshold": 0.9}}},
    }
    cases = apply.results_of(table, inventory, lock, CLASSES, "case")
    assert cases["warm_result"].tolist() == ["positive", "negative"]
    patients = apply.results_of(table, inventory, lock, CLASSES, "patient")
    assert patients["warm_result"].tolist() == [apply.NO_CUTOFF] * 2
    own = {**lock, "calibration": {"heads": {"warm": {}}}}
    headed = apply.results_of(table.assign(endpoint_warm=[0.1, 0.95]), inventory, own, CLASSES, "case")
    assert headed["warm_result"].tolist() == ["negative", "positive"]


def test_the_packed_code_runs_by_itself(packed: Packed, applied: Path, other: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "marrowflow", "learning.apply", *arguments(packed, packed.manifest, tmp_path / "out", other)],
        env={**os.environ, "PYTHONPATH": str(other / bundle.CODE), "PYTHONDONTWRITEBYTECODE": ""}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "not the package's own code" not in done.stderr
    assert sha256_of(tmp_path / "out/predictions.parquet") == sha256_of(applied / "predictions.parquet")
    # The modules that Python has compiled meanwhile make no other package of it.
    assert list((other / bundle.CODE).rglob("__pycache__/*.pyc"))
    bundle.verified_card(other)
    done = subprocess.run(
        [sys.executable, "-m", "marrowflow", "statistics.accuracy", "--options", (other / bundle.ACCURACY).read_text(),
         "--predictions", str(tmp_path / "out/predictions.parquet"), "--lock", str(other / bundle.LOCK), "--out", str(tmp_path / "accuracy")],
        env={**os.environ, "PYTHONPATH": str(other / bundle.CODE)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(tmp_path / "accuracy/metrics.csv")["n_cases"].max() == 11


@pytest.mark.parametrize(
    "name",
    ["networks/two/1/model.safetensors", "threshold.json", "preprocessing.json", "card.json", "code/marrowflow/cli.py",
     "requirements.txt", "README.md", "LICENCES.md", bundle.CHECKSUMS],
)  # fmt: skip
def test_a_changed_file_is_refused_by_name(packed: Packed, other: Path, tmp_path: Path, name: str) -> None:
    content = bytearray((other / name).read_bytes())
    content[0] ^= (
        1 if name != bundle.CHECKSUMS else ord("0") ^ ord("1") if content[0] in b"01" else ord("2") ^ ord("3")
    )
    (other / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} was changed|{name}.*no checksum"):
        apply.main(arguments(packed, packed.manifest, tmp_path / "out", other))
    assert not (tmp_path / "out").exists()


def test_missing_added_and_relabelled_packages_are_refused(
    packed: Packed, other: Path, tmp_path: Path
) -> None:
    (other / "networks/one/0/card.json").unlink()
    (other / "networks/one/0/model_2.safetensors").write_bytes(b"more")
    with pytest.raises(UserError, match=r"(?s)card\.json is missing.*model_2\.safetensors was added"):
        bundle.verified_card(other)
    label = json.loads((packed.package / bundle.PACKAGE).read_text()) | {"index_test": "another-raw"}
    relabelled = Path(shutil.copytree(packed.package, tmp_path / "relabelled"))
    (relabelled / bundle.PACKAGE).write_text(json.dumps(label))
    with pytest.raises(UserError, match=r"package\.json was changed"):
        bundle.verified_card(relabelled)
    (relabelled / bundle.PACKAGE).unlink()
    with pytest.raises(UserError, match=r"no package\.json"):
        bundle.verified_card(relabelled)


def test_below_code_only_what_its_own_sources_compile_to_is_accepted(
    packed: Packed, other: Path, tmp_path: Path
) -> None:
    source = other / "code/marrowflow/cli.py"
    compiled = Path(py_compile.compile(str(source), doraise=True) or "")
    bundle.verified_card(other)
    (tmp_path / "cli.py").write_text(source.read_text() + "stolen = True\n")
    py_compile.compile(str(tmp_path / "cli.py"), cfile=str(compiled), doraise=True)
    with pytest.raises(UserError, match=r"cli\.cpython-\d+\.pyc was added.*\n.*python -B"):
        bundle.verified_card(other)
    for content in (b"", b"\0" * 40):
        compiled.write_bytes(content)
        with pytest.raises(UserError, match=r"cli\.cpython-\d+\.pyc was added"):
            bundle.verified_card(other)
    compiled.unlink()
    (compiled.parent / "patients.txt").write_text("mine")
    with pytest.raises(UserError, match=r"__pycache__/patients\.txt was added"):
        bundle.verified_card(other)


def test_broken_links_and_lists_are_refused_in_words(packed: Packed, other: Path) -> None:
    (other / "README.md").unlink()
    (other / "README.md").symlink_to("nowhere")
    (other / "more").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"(?s)more was added.*README\.md cannot be read"):
        bundle.verified_card(other)
    (other / bundle.CHECKSUMS).write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"checksums\.sha256 is no text"):
        bundle.verified_card(other)


def test_the_manifests_folder_is_not_written_to(packed: Packed, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packed.manifest.parent, tmp_path / "b"))
    manifest = (folder / "manifest.csv").rename(folder / "images.csv")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (tmp_path / "link").symlink_to(folder)
    for out in (folder, tmp_path / "link", folder / "images/.."):
        with pytest.raises(UserError, match="manifest's folder"):
            apply.main(arguments(packed, manifest, out))
    (tmp_path / "results").mkdir()
    (tmp_path / "results/images.csv").symlink_to(manifest)
    with pytest.raises(UserError, match="manifest's folder"):
        apply.main(arguments(packed, tmp_path / "results/images.csv", tmp_path / "results"))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_results_are_of_one_run(
    packed: Packed, applied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(applied, tmp_path / "out"))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    smaller = write_hospital(tmp_path / "c", 6, 2)
    for threads in ("0", "-1"):
        with pytest.raises(UserError, match="--threads"):
            apply.main([*arguments(packed, smaller, out), "--threads", threads])

    def broken(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(apply, "results_of", broken)
        with pytest.raises(RuntimeError):
            apply.main(arguments(packed, smaller, out))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    # A package of fewer units leaves none of an older one's tables.
    verified = bundle.verified_card
    with monkeypatch.context() as patch:
        patch.setattr(bundle, "verified_card", lambda p: (verified(p)[0] | {"units": ["case"]}, "0"))
        apply.main(arguments(packed, smaller, out))
    assert {path.name for path in out.iterdir()} == set(before) - {"patients.csv"}
    assert len(pd.read_parquet(out / "inventory.parquet")) == 6
    (out / "patients.csv").mkdir()
    with pytest.raises(UserError, match=r"patients\.csv.*choose another folder"):
        apply.main(arguments(packed, smaller, out))
    assert not (out / "run.json").exists()


def test_no_pixels_stay_behind_when_it_is_ended(
    packed: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (out / ".pixels-killed/store").mkdir(parents=True)
    (out / ".pixels-killed/store/pixels.npy").write_bytes(b"a patient's")
    seen = []

    def ended(*_: object) -> None:
        seen.extend(path.name for path in out.iterdir())
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(apply, "pack_as_fitted", ended)
    with pytest.raises(Terminated), ending_in_order():  # as every step is run
        apply.main(arguments(packed, packed.manifest, out))
    assert len(seen) == 1
    assert seen != [".pixels-killed"]
    assert not list(out.iterdir())


def test_a_place_that_cannot_be_written_to_is_refused(packed: Packed, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file/out", Path("/proc/out")):
        with pytest.raises(UserError, match="cannot be written"):
            apply.main(arguments(packed, packed.manifest, out))


def test_results_do_not_go_into_the_package(packed: Packed) -> None:
    with pytest.raises(UserError, match="lies in the package"):
        apply.main(arguments(packed, packed.manifest, packed.package / "results"))


def test_other_versions_are_named(
    packed: Packed,
    applied: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = apply._installed
    monkeypatch.setattr(apply, "_installed", lambda name: "1.0" if name == "timm" else installed(name))
    apply.main(arguments(packed, packed.manifest, tmp_path))
    assert "timm 1.0, and the package was made with" in caplog.text
    said = json.loads((tmp_path / "run.json").read_text())
    assert any(fact.startswith("timm 1.0") for fact in said["differing"])
    assert str(tmp_path) not in (tmp_path / "run.json").read_text()
    assert said["package"]["digest"] == sha256_of(packed.package / bundle.CHECKSUMS)
    # Nothing but the results stays behind.
    assert {p.name for p in applied.iterdir()} == {
        "predictions.parquet", "predictions.csv", "patients.csv", "images.csv", "inventory.parquet", "run.json",
    }  # fmt: skip


def test_without_patients_duplicates_stand_in(packed: Packed, tmp_path: Path) -> None:
    manifest = write_hospital(tmp_path / "c", 6, 2)
    shutil.copy(tmp_path / "c/images/000.png", tmp_path / "c/images/003.png")
    pd.read_csv(manifest).drop(columns="patient_id").to_csv(manifest, index=False)
    apply.main(arguments(packed, manifest, tmp_path / "out"))
    patients = pd.read_csv(tmp_path / "out/patients.csv")
    assert patients["n_images"].max() >= 2
    assert patients["patient_id"].str.startswith("b/surrogate_").all()
    assert json.loads((tmp_path / "out/run.json").read_text())["patients_are"] == ["surrogate"]


def test_labels_may_be_left_out(packed: Packed, applied: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(packed.manifest.parent, tmp_path / "b")
    table = pd.read_csv(folder / "manifest.csv")
    # A label under another name is still a mistake to be told of.
    table.rename(columns={"label": "Label"}).to_csv(folder / "manifest.csv", index=False)
    with pytest.raises(UserError, match="rename it to 'label'"):
        apply.main(arguments(packed, folder / "manifest.csv", tmp_path / "out"))
    table[["image", "patient_id", "eligible"]].to_csv(folder / "manifest.csv", index=False)
    apply.main(arguments(packed, folder / "manifest.csv", tmp_path / "out"))
    without, labelled = (pd.read_parquet(o / "predictions.parquet") for o in (tmp_path / "out", applied))
    assert set(without["truth"]) == {"missing"}
    pd.testing.assert_frame_equal(
        without.drop(columns="truth"), labelled.drop(columns="truth"), check_exact=True
    )
    assert (tmp_path / "out/patients.csv").read_bytes() == (applied / "patients.csv").read_bytes()


def test_images_that_were_not_begun_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_hospital(tmp_path / "d", 30, 3)
    inventory = pd.read_csv(manifest).assign(status="included").rename(columns={"label": "type"})
    begun = []

    def slow(pixels: np.ndarray, *_: object) -> tuple[np.ndarray, str]:
        begun.append(1)
        time.sleep(0.02)
        return np.zeros((16, 16, 3), np.uint8), ""

    def ended(*_: object) -> None:
        raise SystemExit(143)

    monkeypatch.setattr(fitted, "correct_as_fitted", slow)
    monkeypatch.setattr(fitted, "progress", ended)
    with pytest.raises(SystemExit):
        fitted.pack_as_fitted(
            inventory.assign(case_id=inventory["image"]),
            manifest.parent,
            tmp_path / "store",
            Images(size=16),
            ColourRecipe(),
            None,
            1,
        )
    assert len(begun) < 5
    assert not list((tmp_path / "store").iterdir())
