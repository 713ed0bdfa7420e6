"""What a hospital's page says of the seal: true of both orders of time, and nothing of a file that was changed."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from reporting_fixture import Tree, external_options, write_tree

from marrowflow.choices.seal import seal
from marrowflow.choices.threshold import digest_of
from marrowflow.config import read_options
from marrowflow.errors import UserError
from marrowflow.files import sha256_of, write_json, write_table
from marrowflow.reporting import page, sealed
from marrowflow.reporting.primary import primary_of
from marrowflow.reporting.reporter import CommonOptions, Reporter
from marrowflow.reporting.results import Results


@pytest.fixture(scope="module")
def sealed_once(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """The fake study with networks, folds and checksums of images, sealed; beta came later, gamma before."""
    folder = tmp_path_factory.mktemp("sealed")
    tree = write_tree(folder)
    root = tree.results
    networks = []
    for card in sorted(root.glob("training/*/*/*/*/card.json")):
        networks.append(card.with_name("model.safetensors"))
        networks[-1].write_bytes(card.as_posix().encode())
    for name in ("alpha", "beta", "gamma"):
        path = root / f"cohorts/{name}/inventory.parquet"
        table = pd.read_parquet(path)
        write_table(path, table.assign(sha256=[f"{name}{i:04}" for i in range(len(table))]))
    inventory = pd.read_parquet(root / "cohorts/alpha/inventory.parquet")
    write_table(root / "splits/sound/folds.parquet", inventory[["case_id", "patient_id", "cohort"]])
    parts = {
        "primary": [tree.primary],
        "threshold": sorted(root.glob("locked/*/*/*/threshold.json")),
        "network": networks,
        "card": [path.with_name("card.json") for path in networks],
        "preprocessing": sorted(root.glob("images/alpha/*/store.json")),
        "folds": [root / "splits/sound/folds.parquet"],
        "inventory": [root / "cohorts/alpha/inventory.parquet"],
    }
    write_json(root / "locked/seal.json", dated(seal(root, parts, folder / "notes"), "2026-03-01T09:30:00Z"))
    arrive(root, "beta", "2026-03-13T10:00:00Z")
    arrive(root, "gamma", "2026-02-28T10:00:00Z")
    return tree


@pytest.fixture
def tree(sealed_once: Tree, tmp_path: Path) -> Tree:
    """A copy of the sealed study that a test may change."""
    shutil.copytree(sealed_once.results, tmp_path / "results")
    return Tree(tmp_path / "results", sealed_once.cohorts, sealed_once.options)


def dated(found: dict, time: str) -> dict:
    rest = {key: value for key, value in found.items() if key != "digest"} | {"sealed_at": time}
    return {**rest, "digest": digest_of(rest)}


def arrive(root: Path, cohort: str, time: str) -> None:
    write_json(root / "external" / cohort / "arrival.json", {"cohort": cohort, "noted_at": time})


def section(tree: Tree, cohort: str) -> page.Section:
    results = Results(tree.results, tree.results / "external" / cohort)
    options = read_options(CommonOptions, json.dumps(external_options(tree.options)))
    reporter = Reporter(options, results, primary_of(tree.primary))
    return sealed.sealed_section(reporter, cohort, f"Hospital {cohort}")


def words(found: page.Section) -> str:
    return " ".join(p for block in found.blocks if isinstance(block, page.Text) for p in block.paragraphs)


def test_a_hospital_that_came_later(tree: Tree) -> None:
    said = words(section(tree, "beta"))
    assert "Sealed on 2026-03-01 09:30:00 UTC" in said
    assert "Hospital beta was first taken up on 2026-03-13 10:00:00 UTC, 12 days later" in said
    assert "prove nothing" not in said


def test_a_hospital_that_was_there_before(tree: Tree) -> None:
    said = words(section(tree, "gamma"))
    assert "no later than the seal" in said
    assert "the times prove nothing" in said
    assert "hold images of alpha only" in said
    assert "days later" not in said


@pytest.mark.parametrize(
    ("noted", "words"),
    [
        ("10:30:00", "1 hour later"),
        ("09:31:59", "1 minute later"),
        ("09:30:01", "1 second later"),
        ("12:00:00", "2 hours later"),
    ],
)
def test_times_of_less_than_a_day(noted: str, words: str) -> None:
    found = {"sealed_at": "2026-03-01T09:30:00Z", "divided": {}}
    assert words in sealed.when(found, {"noted_at": f"2026-03-01T{noted}Z"}, "H")


def test_equal_times_prove_nothing() -> None:
    found = {"sealed_at": "2026-03-01T09:30:00Z", "divided": {"sound": {"cohorts": ["a", "b"]}}}
    said = sealed.when(found, {"noted_at": "2026-03-01T09:30:00Z"}, "H")
    assert "prove nothing" in said
    assert "images of a and b only" in said


def test_the_table_has_each_network_with_its_checksum(tree: Tree) -> None:
    tables = [block for block in section(tree, "beta").blocks if block.kind == "table"]
    assert [t.title for t in tables] == [
        "Sealed for lite-raw",
        "Sealed for lite-corrected",
        "Sealed for all index tests",
    ]
    cells = {getattr(row[0], "text", row[0]): (row[0], row[2]) for row in tables[0].rows}
    assert list(cells)[:3] == ["network of fold 0", "network of fold 1", "network of fold 2"]
    link, shown = cells["network of fold 1"]
    path = tree.results / "external/beta" / link.href
    assert path.resolve() == (tree.results / "training/sound/lite/raw/1/model.safetensors").resolve()
    assert sha256_of(path).startswith(shown)
    assert "colour correction, alpha" in cells
    lock = json.loads((tree.results / "locked/sound/lite/raw/threshold.json").read_text())
    cutoff = lock["endpoints"]["leukaemia"]["patient"]["threshold"]
    assert f"leukaemia per patient: {cutoff:.3f}" in next(
        r[1] for r in tables[0].rows if getattr(r[0], "text", "") == "cut-offs"
    )


@pytest.mark.parametrize(
    "name", ["training/sound/lite/raw/1/model.safetensors", "images/alpha/raw/store.json"]
)
def test_no_page_is_written_of_changed_files(tree: Tree, name: str) -> None:
    path = tree.results / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(
        UserError, match=f"{name}.*sealed with SHA-256 .*, now its SHA-256 is {sha256_of(path)}"
    ):
        section(tree, "beta")


def test_shared_images_are_counted_and_those_included_alarm(tree: Tree) -> None:
    path = tree.results / "cohorts/beta/inventory.parquet"
    table = pd.read_parquet(path)
    out = table.index[table["status"] == "excluded"][0]
    table.loc[out, "sha256"] = "alpha0003"
    write_table(path, table)
    note = section(tree, "beta").blocks[2]
    assert note.tone == "note"
    assert (
        f"Of the {len(table)} images in the manifest of Hospital beta, 1 is byte for byte"
        in note.paragraphs[0]
    )
    assert "excluded from the validation" in note.paragraphs[0]
    table.loc[table.index[table["status"] == "included"][:2], "sha256"] = ["alpha0001", "alpha0002"]
    write_table(path, table)
    note = section(tree, "beta").blocks[2]
    assert note.tone == "warning"
    assert "3 are byte for byte" in note.paragraphs[0]
    assert "2 of them included" in note.paragraphs[0]


def test_without_a_seal_it_is_missing(tree: Tree) -> None:
    (tree.results / "locked/seal.json").unlink()
    said = words(section(tree, "beta"))
    assert "missing" in said
    assert "seal.json" in said
