"""What is sealed is compared byte by byte; the time belongs to the content."""

import hashlib
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from marrowflow import first_time
from marrowflow.choices import seal
from marrowflow.choices.threshold import digest_of
from marrowflow.errors import UserError
from marrowflow.files import write_json, write_table

LOCK = "locked/sound/lite/raw/threshold.json"
NETWORK = "training/sound/lite/raw/0/model.safetensors"
FOLDS = "splits/sound/folds.parquet"
STORE = "images/alpha/raw/store.json"
INVENTORY = "cohorts/alpha/inventory.parquet"
CARD = "training/sound/lite/raw/0/card.json"
PRIMARY = "locked/primary.json"
SEALED = [INVENTORY, STORE, PRIMARY, LOCK, FOLDS, CARD, NETWORK]


def write_lock(path: Path, threshold: float) -> None:
    lock = {"endpoints": {"warm": {"positive": ["red"], "case": {"threshold": threshold}}}}
    write_json(path, {**lock, "digest": digest_of(lock)})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A study of one development hospital with five images of three patients, one of them excluded; and an external one."""
    root = tmp_path / "study"
    write_json(root / PRIMARY, {"index_test": "lite-raw", "protocol": "sound"})
    write_lock(root / LOCK, 0.5)
    for name, content in ((NETWORK, b"weights"), (CARD, b"{}"), (STORE, b'{"recipe": {}}')):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    cases = [f"alpha/{i}.png" for i in range(5)]
    patients = ["alpha/p0", "alpha/p0", "alpha/p1", "alpha/p1", "alpha/p2"]
    table = pd.DataFrame({"case_id": cases, "patient_id": patients, "cohort": "alpha"})
    write_table(root / FOLDS, table.iloc[:4].assign(fold=0))
    write_table(root / INVENTORY, table.assign(status=["included"] * 4 + ["excluded"]))
    write_table(root / "cohorts/beta/inventory.parquet", table.assign(cohort="beta", status="included"))
    return root


def run(root: Path, **replaced: str) -> dict:
    paths = {
        "primary": PRIMARY, "locks": LOCK, "networks": NETWORK, "stores": STORE, "folds": FOLDS, "inventories": INVENTORY,
    } | replaced  # fmt: skip
    given = [word for flag, path in paths.items() for word in (f"--{flag}", str(root / path))]
    out = root / "locked/seal.json"
    seal.main(["--root", str(root), *given, "--notes", str(root / "state/seal"), "--out", str(out)])
    return json.loads(out.read_text())


def at(monkeypatch: pytest.MonkeyPatch, time: str) -> None:
    """Stop the clock."""

    class Clock(first_time.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromisoformat(time).replace(tzinfo=tz)

    monkeypatch.setattr(first_time, "datetime", Clock)


def test_every_file_is_sealed_with_its_own_checksum(root: Path) -> None:
    found = run(root)
    assert [file["path"] for file in found["files"]] == sorted(SEALED)
    for file in found["files"]:
        content = (root / file["path"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["bytes"] == len(content)
    assert found["cohorts"] == {"alpha": {"images": 5, "included": 4, "patients": 2}}
    assert found["divided"] == {"sound": {"cohorts": ["alpha"], "images": 4, "patients": 2}}
    rest = {key: value for key, value in found.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    assert found["digest"] == hashlib.sha256(text.encode()).hexdigest()


def test_the_same_content_keeps_its_bytes_and_its_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, "2026-03-01T09:30:00")
    first = run(root)
    assert first["sealed_at"] == "2026-03-01T09:30:00Z"
    sealed = (root / "locked/seal.json").read_bytes()
    at(monkeypatch, "2026-04-01T09:30:00")
    (root / "locked/seal.json").unlink()
    run(root)
    assert (root / "locked/seal.json").read_bytes() == sealed
    write_lock(root / LOCK, 0.4)
    assert run(root)["sealed_at"] == "2026-04-01T09:30:00Z"
    write_lock(root / LOCK, 0.5)
    assert run(root) == first


@pytest.mark.parametrize("name", SEALED)
def test_a_changed_byte_is_caught_and_named(root: Path, name: str) -> None:
    found = run(root)
    assert seal.verify_seal(found, root) == len(SEALED)
    before = hashlib.sha256((root / name).read_bytes()).hexdigest()
    content = bytearray((root / name).read_bytes())
    content[len(content) // 2] ^= 1
    (root / name).write_bytes(content)
    after = hashlib.sha256(content).hexdigest()
    with pytest.raises(UserError, match=rf"(?s){re.escape(name)}.*{before}.*{after}.*seal anew") as error:
        seal.verify_seal(found, root)
    assert str(error.value).count("sealed with") == 1
    (root / name).unlink()
    with pytest.raises(UserError, match=rf"{re.escape(name)}.*missing"):
        seal.verify_seal(found, root)


def test_other_code_is_caught(root: Path) -> None:
    found = run(root)
    found["code"]["images.correct"] = "0" * 16
    with pytest.raises(UserError, match=r"code of images\.correct"):
        seal.verify_seal(found, root)


def test_a_seal_that_was_edited_is_refused(root: Path) -> None:
    run(root)
    path = root / "locked/seal.json"
    path.write_text(path.read_text().replace('"sealed_at": "2', '"sealed_at": "1'))
    with pytest.raises(UserError, match="changed after it was written"):
        seal.read_seal(path)


def test_external_files_do_not_enter(root: Path) -> None:
    before = run(root)
    write_table(
        root / "cohorts/beta/inventory.parquet", pd.DataFrame({"case_id": ["beta/x"], "cohort": "beta"})
    )
    write_json(root / "external/beta/gate.json", {})
    assert run(root) == before
    assert "beta" not in json.dumps(before)


def test_a_division_of_another_hospital_is_refused(root: Path) -> None:
    folds = pd.read_parquet(root / FOLDS)
    folds.loc[1, "cohort"] = "beta"
    write_table(root / FOLDS, folds)
    with pytest.raises(UserError, match=r"folds\.parquet divides images of beta"):
        run(root)


def test_a_hospital_that_was_not_divided_is_refused(root: Path) -> None:
    both = ["--inventories", str(root / INVENTORY), str(root / "cohorts/beta/inventory.parquet")]
    given = {"primary": PRIMARY, "locks": LOCK, "networks": NETWORK, "stores": STORE, "folds": FOLDS}
    words = [word for flag, path in given.items() for word in (f"--{flag}", str(root / path))]
    out = root / "locked/seal.json"
    with pytest.raises(UserError, match=r"beta.*in no division") as error:
        seal.main(["--root", str(root), *words, *both, "--notes", str(root / "notes"), "--out", str(out)])
    assert "alpha" not in str(error.value)
    assert not out.exists()
    assert not (root / "notes").exists()


def test_a_lock_that_was_changed_is_not_sealed(root: Path) -> None:
    (root / LOCK).write_text((root / LOCK).read_text().replace("0.5", "0.6"))
    with pytest.raises(UserError, match="changed after it was locked"):
        run(root)


def test_files_outside_of_the_study_are_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text("{}")
    with pytest.raises(UserError, match="outside of --root"):
        run(root, stores="../store.json")
