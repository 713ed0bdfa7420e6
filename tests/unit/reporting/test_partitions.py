"""The leakage gate in words: what stands on two sides where augmented images were divided."""

from __future__ import annotations

from pathlib import Path

from hand_made_grid import grid_options, reporter_of

from marrowflow.files import write_json
from marrowflow.reporting.page import Text
from marrowflow.reporting.partitions import partition_blocks
from marrowflow.reporting.results import IndexTest
from marrowflow.reporting.tables import Table


def test_copies_on_two_sides_are_counted_beside_patients(tmp_path: Path) -> None:
    leaks = {"patients": 7, "groups": 6, "exact_duplicates": 0, "near_duplicates": 1, "parents": 31}
    fold = {"fold": 0, "n_test_cases": 96} | {k: {"n": n, "test_cases": 2 * n} for k, n in leaks.items()}
    gate = {"leaks": leaks, "n_patients": 10, "n_cases": 40, "distance": 3, "folds": [fold]}
    write_json(tmp_path / "splits" / "as_published" / "gate.json", gate)
    reporter = reporter_of(tmp_path, grid_options())
    _, said, table = partition_blocks(reporter, IndexTest("as_published", "lite-raw"))
    assert isinstance(said, Text) and isinstance(table, Table)
    assert (
        "0 exact duplicates, 6 groups, 1 near duplicates, 31 images with copies, 7 patients"
        in said.paragraphs[0]
    )
    assert list(table.header)[-2:] == ["images with copies", "patients"]
    assert table.rows == [["0", "96", "0 (0)", "6 (12)", "1 (2)", "31 (62)", "7 (14)"]]
    assert list(table.numeric) == [1, 2, 3, 4, 5, 6]
