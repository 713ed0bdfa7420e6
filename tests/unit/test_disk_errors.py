"""A disk that is full, read-only or gone: one sentence for the user, the old file or none, and nothing half written.

Real disks: a file system in memory of a few hundred kB, which only root can mount. Elsewhere these tests are skipped.
"""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from marrowflow.errors import UserError
from marrowflow.files import disk_errors_told, in_bytes, write_json, write_table, write_text, written_whole
from marrowflow.images.store import StoreWriter
from marrowflow.learning.checkpoint import Checkpoint
from marrowflow.learning.weight_files import write_weights

ROOM = 256 * 1024
# No compression makes these smaller than the disk.
NOISE = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)


def mounted(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of `ROOM` bytes."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a small disk is mounted by root only, and these tests run as another user")
    try:
        mounted("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(place))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small disk can be mounted here: {error}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def parquet(path: Path) -> None:
    write_table(path.with_suffix(".parquet"), pd.DataFrame({"x": NOISE.astype(np.float64).ravel()}))


def csv(path: Path) -> None:
    write_table(path.with_suffix(".csv"), pd.DataFrame({"x": NOISE.ravel()}))


def json(path: Path) -> None:
    write_json(path.with_suffix(".json"), NOISE.ravel().tolist())


def html(path: Path) -> None:
    write_text(path.with_suffix(".html"), "x" * 2 * ROOM)


def safetensors(path: Path) -> None:
    write_weights(path.with_suffix(".safetensors"), {"w": torch.from_numpy(NOISE)}, {})


def torch_state(path: Path) -> None:
    Checkpoint(path.with_suffix(""), "a" * 64).save("training", {"w": torch.from_numpy(NOISE)})


def png_of_pillow(path: Path) -> None:
    from PIL import Image

    with written_whole(path.with_suffix(".png")) as beside:
        Image.fromarray(NOISE).save(beside)


def png_of_matplotlib(path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), dpi=100)
    figure.figimage(NOISE)
    with written_whole(path.with_suffix(".png")) as beside:
        figure.savefig(beside, dpi=100)


def png_of_opencv(path: Path) -> None:
    with written_whole(path.with_suffix(".png")) as beside:
        beside.write_bytes(cv2.imencode(".png", NOISE)[1].tobytes())


def store(path: Path) -> None:
    pictures = NOISE[:300, :300], NOISE[300:, 300:]
    with StoreWriter(path.parent, ["a", "b"], 300, {}) as writer:
        for row, picture in enumerate(pictures):
            writer.put(row, picture)


WRITERS = [
    parquet,
    csv,
    json,
    html,
    safetensors,
    torch_state,
    png_of_pillow,
    png_of_matplotlib,
    png_of_opencv,
    store,
]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_full_disk_is_told_and_nothing_half_written_stays(
    disk: Path, write: Callable[[Path], None]
) -> None:
    with pytest.raises(UserError) as error:
        write(disk / "result.x")
    message = str(error.value)
    assert message.startswith(str(disk))
    assert "cannot be written (No space left on device): make room (" in message
    assert "of 262 kB are free), then run the same command again" in message
    assert [path for path in disk.rglob("*") if path.is_file()] == []


def test_an_older_result_survives_a_full_disk(disk: Path) -> None:
    (disk / "result.csv").write_text("old\n")
    with pytest.raises(UserError, match="No space left"):
        csv(disk / "result.x")
    assert [path.name for path in disk.iterdir()] == ["result.csv"]
    assert (disk / "result.csv").read_text() == "old\n"


def test_an_older_store_survives_a_full_disk(disk: Path) -> None:
    with StoreWriter(disk, ["a"], 20, {}) as writer:
        writer.put(0, NOISE[:20, :20])
    before = {path.name: path.read_bytes() for path in disk.iterdir()}
    with pytest.raises(UserError, match="No space left"):
        store(disk / "result.x")
    assert {path.name: path.read_bytes() for path in disk.iterdir()} == before


@pytest.mark.parametrize("write", [csv, store], ids=lambda write: write.__name__)
def test_a_read_only_disk_is_told(disk: Path, write: Callable[[Path], None]) -> None:
    mounted("-o", "remount,ro", str(disk))
    for path in (disk / "result.x", disk / "folder" / "result.x"):
        with pytest.raises(UserError, match=r"Read-only file system\): choose another folder"):
            write(path)


def test_a_disk_that_becomes_read_only_is_told(disk: Path) -> None:
    with (
        pytest.raises(UserError, match="Read-only file system"),
        written_whole(disk / "t.csv") as beside,
    ):
        mounted("-o", "remount,ro", str(disk))
        beside.write_text("x")


def test_a_bug_on_a_disk_with_room_stays_a_bug(disk: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"), written_whole(disk / "t.csv"):
        raise RuntimeError("a bug")


def test_a_folder_that_vanishes_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    told = r"t\.csv cannot be written \(its folder is gone\).*Bring it back"
    with pytest.raises(UserError, match=told), written_whole(folder / "t.csv") as beside:
        folder.rmdir()
        beside.write_text("x")
    assert not folder.exists()


def test_a_stores_folder_that_vanishes_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    told = r"pixels\.npy cannot be written \(its folder is gone\)"
    with pytest.raises(UserError, match=told), StoreWriter(folder, ["a"], 20, {}) as writer:
        writer.put(0, NOISE[:20, :20])
        writer.beside.unlink()
        folder.rmdir()


def test_a_part_that_another_process_removed_is_told_and_the_disk_is_not_blamed(tmp_path: Path) -> None:
    told = r"cannot be written \(its temporary file was removed by another process\)"
    with pytest.raises(UserError, match=rf"t\.csv {told}"), written_whole(tmp_path / "t.csv") as beside:
        beside.write_text("x")
        beside.unlink()
    with (
        pytest.raises(UserError, match=rf"pixels\.npy {told}"),
        StoreWriter(tmp_path / "store", ["a"], 20, {}) as writer,
    ):
        writer.put(0, NOISE[:20, :20])
        writer.beside.unlink()


def test_a_writer_that_gives_up_in_silence_on_a_full_disk_is_told(disk: Path) -> None:
    """As OpenCV does: it raises nothing, and removes what it began."""
    (disk / "other").write_bytes(bytes(ROOM - 32 * 1024))
    with (
        pytest.raises(UserError, match="No space left on device"),
        written_whole(disk / "t.png") as beside,
    ):
        cv2.imwrite(str(beside), NOISE)


def test_a_folder_that_fails_when_it_is_looked_through_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network's disk that was taken away after the folder had been found."""

    def gone(_: Path) -> list[str]:
        tmp_path.rmdir()
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "listdir", gone)
    with pytest.raises(UserError, match="its folder is gone"), written_whole(tmp_path / "t.csv"):
        pass
    monkeypatch.undo()
    tmp_path.mkdir()


def test_an_input_that_is_missing_is_not_taken_for_the_folder(tmp_path: Path) -> None:
    """A writer that reads something meets errors that are not its disk's."""
    with pytest.raises(FileNotFoundError, match="manifest"), disk_errors_told(tmp_path / "t.csv"):
        (tmp_path / "manifest.csv").read_text()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (99_400, "99.4 kB"),
        (262_144, "262 kB"),
        (1.4e12, "1.4 TB"),
    ],
)
def test_bytes_are_told_in_units(number: int, text: str) -> None:
    assert in_bytes(number) == text
