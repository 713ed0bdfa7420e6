"""A hospital's first time is kept, whatever becomes of its manifest."""

import hashlib
import json
from pathlib import Path

import pytest

from marrowflow import first_time
from marrowflow.cohorts import arrival
from marrowflow.errors import UserError


def note(folder: Path) -> dict:
    arrival.main(
        ["--cohort", "delta", "--manifest", str(folder / "manifest.csv"), "--note", str(folder / "state/delta.json"),
         "--out", str(folder / "arrival.json")]
    )  # fmt: skip
    return json.loads((folder / "arrival.json").read_text())


def test_the_first_time_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "manifest.csv").write_text("image\n")
    first = note(tmp_path)
    known = first_time.parse_time(first["noted_at"])
    assert first["cohort"] == "delta"
    assert first["manifest_sha256"] == hashlib.sha256(b"image\n").hexdigest()

    class Later(first_time.datetime):
        @classmethod
        def now(cls, tz=None):
            return known.replace(year=known.year + 1)

    monkeypatch.setattr(first_time, "datetime", Later)
    (tmp_path / "manifest.csv").write_text("image,patient_id\n")
    (tmp_path / "arrival.json").unlink()
    second = note(tmp_path)
    assert second["noted_at"] == first["noted_at"]
    assert second["manifest_sha256"] != first["manifest_sha256"]
    (tmp_path / "state/delta.json").unlink()
    assert note(tmp_path)["noted_at"][:4] == str(known.year + 1)


def test_a_note_without_a_time_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "note.json").write_text('{"first": "yesterday"}')
    with pytest.raises(UserError, match=r"note\.json holds no time"):
        first_time.first_time(tmp_path / "note.json")


def test_a_note_that_is_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "note.json").mkdir()
    with pytest.raises(UserError, match=r"note\.json.*folder"):
        first_time.first_time(tmp_path / "note.json")


@pytest.mark.parametrize("name", ["../delta", "delta/epsilon", "delta hospital", " ", ""])
def test_a_name_that_is_no_cohorts_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "manifest.csv").write_text("image\n")
    with pytest.raises(UserError, match="letters, digits and underscores"):
        arrival.main(
            ["--cohort", name, "--manifest", str(tmp_path / "manifest.csv"), "--note", str(tmp_path / "note.json"),
             "--out", str(tmp_path / "arrival.json")]
        )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.csv"]
