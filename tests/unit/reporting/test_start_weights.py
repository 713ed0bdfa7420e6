"""Start weights and their licences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hand_made_grid import grid_options, reporter_of, write_training

from marrowflow.choices.threshold import digest_of
from marrowflow.files import write_json
from marrowflow.reporting.limitations import limitations
from marrowflow.reporting.primary import Primary
from marrowflow.reporting.record import record_section
from marrowflow.reporting.results import IndexTest
from marrowflow.reporting.tables import Table
from marrowflow.reporting.weights import weights_of


def write_lock(root: Path, name: str) -> None:
    lock: dict[str, Any] = {"endpoints": {}}
    path = root / "locked" / "sound" / name.replace("-", "/") / "threshold.json"
    write_json(path, lock | {"digest": digest_of(lock)})


def test_the_card_tells_the_source_and_the_configuration_a_files_licence(tmp_path: Path) -> None:
    reporter = reporter_of(tmp_path, grid_options())
    lite, scratch = IndexTest("sound", "lite-raw"), IndexTest("sound", "dense_scratch-raw")
    assert str(weights_of(reporter, lite)) == "file lite.safetensors (CC BY-NC 4.0)"
    assert str(weights_of(reporter, IndexTest("sound", "dense_seed0-raw"))) == "imagenet (licence missing)"
    write_training(tmp_path, "lite-raw", "0", None, weights={"source": "file b.pth", "licence": "not stated"})
    write_training(tmp_path, "dense_scratch-raw", "0", None, weights={"source": "timm", "licence": "mit"})
    timm = {"source": "timm lite", "licence": "apache-2.0"}
    write_training(tmp_path, "lite_w19-raw", "0", None, weights=timm)
    assert str(weights_of(reporter, IndexTest("sound", "lite_w19-raw"))) == "timm lite (apache-2.0)"
    assert str(weights_of(reporter, lite)) == "file b.pth (CC BY-NC 4.0)"
    assert str(weights_of(reporter, scratch)) == "random"


def test_a_page_says_one_licence_of_a_local_file(tmp_path: Path) -> None:
    tests = [IndexTest("sound", f"{name}-raw") for name in ("lite", "dense_seed0", "dense_scratch")]
    said = {"source": "file b.pth", "licence": "not stated"}
    for test in tests:
        write_training(tmp_path, test.name, "0", None, weights=said, network="x")
        write_lock(tmp_path, test.name)
    blocks = record_section(reporter_of(tmp_path, grid_options()), tests, []).blocks
    cards = {t.title.split()[3].strip(","): t for t in blocks if isinstance(t, Table) and "card" in t.title}
    licences = {name: dict(card.rows)["weights.licence"] for name, card in cards.items()}
    assert licences == {
        "lite-raw": "CC BY-NC 4.0",
        "dense_seed0-raw": "not stated",
        "dense_scratch-raw": "not stated",
    }
    assert [bool(card.notes) for card in cards.values()] == [True, False, False]


def test_limitations_name_closed_licences_and_a_chosen_primary(tmp_path: Path) -> None:
    write_training(tmp_path, "dense_seed1-raw", "0", None, weights={"source": "x", "licence": "cc-by-nc-4.0"})
    chosen = Primary("both-raw", "chosen", "auc", "leukaemia", "patient", {"both-raw": 0.9})
    found = limitations(reporter_of(tmp_path, grid_options(), chosen), {}, {})
    named = [text for text in found if "non-commercial" in text]
    # Of the ensemble's members one, and named once; the local file's licence is another.
    assert [text.partition(" are ")[0] for text in named] == [
        "Start weights of dense_seed1",
        "Start weights of lite",
    ]
    assert "cc-by-nc-4.0" in named[0] and "CC BY-NC 4.0" in named[1]
    assert any(text.startswith("both-raw was chosen on development data") for text in found)
    declared = limitations(reporter_of(tmp_path, grid_options()), {}, {})
    assert not any("was chosen" in text or "declared" in text for text in declared)
