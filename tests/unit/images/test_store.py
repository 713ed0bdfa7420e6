"""Stores of packed pixels: what is put comes back, and nothing that is not whole opens."""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marrowflow.errors import UserError
from marrowflow.images.store import PackedPixels, StoreWriter, open_store

WORKFLOW = Path(__file__).parents[3] / "workflow"


def pictures(count, size=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def write(folder, images, flags=None):
    cases = [f"c/{i}.png" for i in range(len(images))]
    with StoreWriter(folder, cases, images.shape[1], {"fit": "pad"}) as writer:
        for row in reversed(range(len(images))):
            writer.put(row, images[row], flags[row] if flags else "")
    return folder


def test_what_is_put_comes_back(tmp_path):
    images = pictures(5)
    store = open_store(write(tmp_path / "s", images, ["", "almost black", "", "", ""]), verify=True)
    np.testing.assert_array_equal(store.pixels, images)
    assert store.index["case_id"].tolist() == [f"c/{i}.png" for i in range(5)]
    assert store.index["row"].tolist() == list(range(5))
    assert store.index["flag"].tolist() == ["", "almost black", "", "", ""]
    assert store.about["fit"] == "pad"
    assert not store.pixels.flags.writeable


def test_pixels_are_a_plain_npy_and_the_digest_is_its_sha256(tmp_path):
    images = pictures(3)
    store = open_store(write(tmp_path / "s", images))
    np.save(tmp_path / "plain.npy", images)
    assert (tmp_path / "s" / "pixels.npy").read_bytes() == (tmp_path / "plain.npy").read_bytes()
    told = subprocess.run(["sha256sum", tmp_path / "plain.npy"], capture_output=True, text=True, check=True)
    assert store.digest == told.stdout.split()[0]


@pytest.fixture(scope="module")
def seven(tmp_path_factory):
    return open_store(write(tmp_path_factory.mktemp("seven") / "s", pictures(7)))


@settings(deadline=None)
@given(rows=st.lists(st.integers(0, 6), max_size=20))
def test_gather_is_indexing(seven, rows):
    batch = seven.gather(rows)
    assert batch.shape == (len(rows), 6, 6, 3)
    for found, row in zip(batch, rows, strict=True):
        np.testing.assert_array_equal(found, pictures(7)[row])


@pytest.mark.parametrize("rows", [[7], [0, -1]])
def test_gather_refuses_rows_outside(seven, rows):
    with pytest.raises(IndexError, match="store of 7"):
        seven.gather(rows)


class TestSeveralStores:
    @pytest.fixture
    def two(self, tmp_path):
        """Return the folders of stores of 4 and 3 images, and the images by case."""
        images, folders = {}, []
        for cohort, count in (("a", 4), ("b", 3)):
            own = {f"{cohort}/{i}": image for i, image in enumerate(pictures(count, seed=count))}
            with StoreWriter(tmp_path / cohort, list(own), 6, {}) as writer:
                for row, image in enumerate(own.values()):
                    writer.put(row, image)
            folders.append(tmp_path / cohort)
            images |= own
        return folders, images

    def test_cases_are_found_in_any_store_and_order(self, two):
        folders, images = two
        pixels = PackedPixels(folders)
        wanted = ["b/2", "a/0", "b/0", "a/3", "b/2"]
        expected = np.stack([images[case] for case in wanted])
        np.testing.assert_array_equal(pixels.of(wanted), expected)
        np.testing.assert_array_equal(pixels.gather(pixels.numbers(wanted)), expected)
        with pytest.raises(UserError, match="c/9"):
            pixels.numbers(["a/0", "c/9"])

    def test_cases_of_a_store_come_in_the_order_of_their_numbers(self, two):
        folders, images = two
        pixels = PackedPixels(folders)
        contents = pixels.contents()
        assert [digest for digest, _ in contents] == [open_store(folder).digest for folder in folders]
        cases = [case for _, cases in contents for case in cases]
        assert cases == list(images)
        assert pixels.numbers(cases).tolist() == list(range(7))

    def test_stores_of_two_sizes_are_refused(self, tmp_path):
        folders = []
        for size in (6, 8):
            with StoreWriter(tmp_path / str(size), [f"{size}/0"], size, {}) as writer:
                writer.put(0, pictures(1, size)[0])
            folders.append(tmp_path / str(size))
        with pytest.raises(UserError, match="8 pixels"):
            PackedPixels(folders)


def test_threads_may_fill_it(tmp_path):
    images = pictures(40)
    with StoreWriter(tmp_path / "s", [str(i) for i in range(40)], 6, {}) as writer:

        def shard(first):
            for row in range(first, 40, 4):
                writer.put(row, images[row])

        threads = [threading.Thread(target=shard, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    np.testing.assert_array_equal(open_store(tmp_path / "s", verify=True).pixels, images)


class TestNotWhole:
    def test_a_killed_writer_leaves_nothing_that_opens(self, tmp_path):
        script = (
            "import sys, numpy as np\n"
            "from marrowflow.images.store import StoreWriter\n"
            "with StoreWriter(sys.argv[1], ['a', 'b'], 8, {}) as writer:\n"
            "    writer.put(0, np.ones((8, 8, 3), np.uint8))\n"
            "    print('half', flush=True)\n"
            "    sys.stdin.read()\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script, tmp_path / "s"],
            env={**os.environ, "PYTHONPATH": str(WORKFLOW)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with pytest.raises(UserError, match="no whole store"):
            open_store(tmp_path / "s")
        assert list((tmp_path / "s").glob(".pixels.*"))
        write(tmp_path / "s", pictures(3))
        assert {p.name for p in (tmp_path / "s").iterdir()} == {"pixels.npy", "index.parquet", "store.json"}

    @pytest.mark.parametrize("fails", [True, False])
    def test_writers_on_two_machines_mix_no_bytes(self, tmp_path, monkeypatch, fails):
        """Where no lock holds, the store is that of the one who ends last, and none takes the other's file away."""
        mine, theirs = pictures(2), pictures(2, seed=1)
        monkeypatch.setattr(platform, "node", lambda: "node-1")
        first = StoreWriter(tmp_path / "s", ["a", "b"], 6, {}).__enter__()
        monkeypatch.setattr(platform, "node", lambda: "node-2")
        second = StoreWriter(tmp_path / "s", ["a", "b"], 6, {}).__enter__()
        for row in (0, 1):
            first.put(row, mine[row])
            second.put(row, theirs[row])
        if fails:
            first.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
        else:
            first.__exit__(None, None, None)
            np.testing.assert_array_equal(open_store(tmp_path / "s", verify=True).pixels, mine)
        second.__exit__(None, None, None)
        np.testing.assert_array_equal(open_store(tmp_path / "s", verify=True).pixels, theirs)
        assert {p.name for p in (tmp_path / "s").iterdir()} == {"pixels.npy", "index.parquet", "store.json"}

    @pytest.mark.parametrize("step", ["write_table", "write_json"])
    def test_a_writer_stopped_between_its_files_leaves_nothing_that_opens(self, tmp_path, monkeypatch, step):
        write(tmp_path / "s", pictures(3))

        def stop(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(f"marrowflow.images.store.{step}", stop)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "s", pictures(3, seed=1))
        with pytest.raises(UserError, match="no whole store"):
            open_store(tmp_path / "s")

    def test_an_error_while_filling_keeps_the_store_that_was_there(self, tmp_path):
        write(tmp_path / "s", pictures(3))
        with pytest.raises(ZeroDivisionError), StoreWriter(tmp_path / "s", ["a"], 6, {}) as writer:
            writer.put(0, pictures(1)[0])
            raise ZeroDivisionError
        np.testing.assert_array_equal(open_store(tmp_path / "s", verify=True).pixels, pictures(3))
        assert sorted(p.name for p in (tmp_path / "s").iterdir()) == [
            "index.parquet",
            "pixels.npy",
            "store.json",
        ]

    def test_a_row_never_put_is_an_error(self, tmp_path):
        with (
            pytest.raises(RuntimeError, match="1 rows were never put, the first of case 'b'"),
            StoreWriter(tmp_path / "s", ["a", "b"], 6, {}) as writer,
        ):
            writer.put(0, pictures(1)[0])
        assert not (tmp_path / "s" / "store.json").exists()

    @pytest.mark.parametrize("name", ["pixels.npy", "index.parquet", "store.json"])
    @pytest.mark.parametrize("damage", ["missing", "empty", "short"])
    def test_damaged_files_are_refused(self, tmp_path, name, damage):
        path = write(tmp_path / "s", pictures(3)) / name
        data = path.read_bytes()
        path.unlink()
        if damage != "missing":
            path.write_bytes(data[: len(data) // 2] if damage == "short" else b"")
        with pytest.raises(UserError, match="run again"):
            open_store(tmp_path / "s")

    def test_one_flipped_bit_is_found_when_asked_for(self, tmp_path):
        path = write(tmp_path / "s", pictures(3)) / "pixels.npy"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        open_store(tmp_path / "s")
        with pytest.raises(UserError, match="sha256"):
            open_store(tmp_path / "s", verify=True)

    @pytest.mark.parametrize("name", ["pixels.npy", "index.parquet"])
    def test_a_file_of_another_store_is_refused(self, tmp_path, name):
        write(tmp_path / "a", pictures(3))
        write(tmp_path / "b", pictures(4))
        (tmp_path / "b" / name).replace(tmp_path / "a" / name)
        with pytest.raises(UserError, match=r"store\.json says"):
            open_store(tmp_path / "a")


def test_wrong_images_and_rows_are_refused(tmp_path):
    with StoreWriter(tmp_path / "s", ["a"], 6, {}) as writer:
        with pytest.raises(ValueError, match="expected uint8"):
            writer.put(0, np.zeros((6, 5, 3), np.uint8))
        with pytest.raises(ValueError, match="float64"):
            writer.put(0, np.zeros((6, 6, 3)))
        with pytest.raises(IndexError):
            writer.put(1, pictures(1)[0])
        writer.put(0, pictures(1)[0])
    assert json.loads((tmp_path / "s" / "store.json").read_text())["shape"] == [1, 6, 6, 3]
