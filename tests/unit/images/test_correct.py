"""The step that packs a cohort: what goes in, what comes out, what stops it."""

import hashlib
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from marrowflow.__main__ import main as run
from marrowflow.config import ColourRecipe, Images
from marrowflow.errors import UserError
from marrowflow.images import correct as step
from marrowflow.images.appearance import APPEARANCE_COLUMNS, appearance
from marrowflow.images.correct import Options, correct_cohort
from marrowflow.images.store import open_store

OPTIONS = Options(images=Images(size=16), recipe=ColourRecipe(method="reflection_median"))


def picture(seed):
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(40, 230, (5, 5, 3), dtype=np.uint8), (40, 30))
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def cohort(tmp_path):
    """Six PNG files, of which the third is excluded; returns the inventory and the folder."""
    folder = tmp_path / "hospital"
    (folder / "smears").mkdir(parents=True)
    rows = []
    for i in range(6):
        name = f"smears/{i}.png"
        cv2.imwrite(str(folder / name), picture(i)[..., ::-1])
        rows.append((f"h/{name}", name, digest(folder / name), "excluded" if i == 2 else "included"))
    return pd.DataFrame(rows, columns=["case_id", "image", "sha256", "status"]), folder


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_packs_included_images_in_the_inventorys_order(cohort, tmp_path):
    inventory, folder = cohort
    inventory = inventory.iloc[::-1]
    correct_cohort(inventory, folder, tmp_path / "out", Options(images=Images(size=30, fit="crop")))
    store = open_store(tmp_path / "out", verify=True)
    assert store.index["case_id"].tolist() == [f"h/smears/{i}.png" for i in (5, 4, 3, 1, 0)]
    np.testing.assert_array_equal(store.pixels, [picture(i)[:, 5:35] for i in (5, 4, 3, 1, 0)])


def test_the_stored_pixels_are_described_in_the_stores_order(cohort, tmp_path):
    inventory, folder = cohort
    correct_cohort(inventory.iloc[::-1], folder, tmp_path / "out", OPTIONS, threads=3)
    store, table = open_store(tmp_path / "out"), pd.read_parquet(tmp_path / "out" / "appearance.parquet")
    assert table["case_id"].tolist() == store.index["case_id"].tolist()
    expected = np.array([appearance(image) for image in store.pixels])
    np.testing.assert_array_equal(table[list(APPEARANCE_COLUMNS)], expected)
    assert table["L_mean"].nunique() == 5


def test_number_of_threads_leaves_no_trace(cohort, tmp_path):
    inventory, folder = cohort
    stores = []
    for threads in (1, 2, 5):
        out = tmp_path / str(threads)
        correct_cohort(inventory, folder, out, OPTIONS, threads)
        stores.append({p.name: p.read_bytes() for p in out.iterdir()})
    assert set(stores[0]) == {"pixels.npy", "index.parquet", "store.json", "appearance.parquet"}
    assert stores[0] == stores[1] == stores[2]


def test_few_images_are_in_memory_at_a_time(cohort):
    started, most = [], 0
    results = step._in_order(lambda i: started.append(i) or i, range(200), threads=3)
    for taken in results:
        most = max(most, len(started) - taken)
    assert sorted(started) == list(range(200))
    assert most <= 7


def test_store_tells_how_it_was_made(cohort, tmp_path):
    inventory, folder = cohort
    target = folder / "smears" / "0.png"
    options = Options(images=Images(size=16), recipe=ColourRecipe(method="reinhard", target=str(target)))
    correct_cohort(inventory, folder, tmp_path / "out", options)
    about = json.loads((tmp_path / "out" / "store.json").read_text())
    assert about["recipe"]["method"] == "reinhard"
    assert about["target_sha256"] == digest(target)
    assert (about["size"], about["fit"], about["shape"]) == (16, "stretch", [5, 16, 16, 3])
    assert about["versions"] == {"numpy": np.__version__, "opencv": cv2.__version__}


def test_flags_reach_the_index_and_the_log(cohort, tmp_path, caplog):
    inventory, folder = cohort
    cv2.imwrite(str(folder / "smears/0.png"), np.full((20, 20, 3), 4, np.uint8))
    inventory.loc[0, "sha256"] = digest(folder / "smears/0.png")
    correct_cohort(inventory, folder, tmp_path / "out", OPTIONS)
    assert open_store(tmp_path / "out").index["flag"].tolist() == ["almost black", "", "", "", ""]
    assert "1 of 5 images could not be treated by the whole recipe: almost black" in caplog.text


def test_crops_before_it_corrects_and_the_store_says_so(cohort, tmp_path):
    inventory, folder = cohort
    for i, colour in enumerate([(60, 40, 120), 230]):
        image = np.full((40, 30, 3), 230, np.uint8)
        image[30:33, 3:6] = 20
        image[8:20, 10:22] = colour
        cv2.imwrite(str(folder / f"smears/{i}.png"), image[..., ::-1])
        inventory.loc[i, "sha256"] = digest(folder / f"smears/{i}.png")
    recipe = ColourRecipe(crop="contour", min_contour=50)
    correct_cohort(inventory[:2], folder, tmp_path / "out", Options(images=Images(size=16), recipe=recipe))
    store = open_store(tmp_path / "out")
    assert (store.pixels[0] == (60, 40, 120)).all()
    assert (store.pixels[1].max(), store.pixels[1].min() < 100) == (230, True)
    assert store.index["flag"].tolist() == ["", "no contour"]
    assert (store.about["recipe"]["crop"], store.about["recipe"]["min_contour"]) == ("contour", 50)


class TestStops:
    @pytest.mark.parametrize("threads", [1, 3])
    def test_an_image_changed_since_intake(self, cohort, tmp_path, threads):
        inventory, folder = cohort
        cv2.imwrite(str(folder / "smears/3.png"), picture(99))
        with pytest.raises(UserError, match=r"3\.png has changed since intake.*--forcerun ingest_cohort"):
            correct_cohort(inventory, folder, tmp_path / "out", OPTIONS, threads)
        assert list((tmp_path / "out").iterdir()) == []

    def test_an_image_gone_since_intake(self, cohort, tmp_path):
        inventory, folder = cohort
        (folder / "smears/4.png").unlink()
        with pytest.raises(UserError, match=r"4\.png cannot be read any more \(No such file"):
            correct_cohort(inventory, folder, tmp_path / "out", OPTIONS)

    def test_an_included_file_that_is_no_image(self, cohort, tmp_path):
        inventory, folder = cohort
        (folder / "smears/4.png").write_text("text")
        inventory.loc[4, "sha256"] = digest(folder / "smears/4.png")
        with pytest.raises(UserError, match=r"4\.png was readable at intake and is not now"):
            correct_cohort(inventory, folder, tmp_path / "out", OPTIONS)

    def test_a_changed_image_that_is_excluded_stops_nothing(self, cohort, tmp_path):
        inventory, folder = cohort
        (folder / "smears/2.png").unlink()
        correct_cohort(inventory, folder, tmp_path / "out", OPTIONS)
        assert len(open_store(tmp_path / "out").index) == 5

    def test_a_cohort_without_images(self, cohort, tmp_path):
        inventory, folder = cohort
        inventory["status"] = "excluded"
        with pytest.raises(UserError, match="none of the 6 images is included"):
            correct_cohort(inventory, folder, tmp_path / "out", OPTIONS)


def test_only_pixels_travel(tmp_path):
    exif = Image.Exif()
    exif[0x9C9D] = "Doe, Jane".encode("utf-16-le")  # XPAuthor
    exif[0x010E] = "Doe, Jane, born 1970"  # ImageDescription
    exif[0x0112] = 6  # stands on its side
    image = picture(1)
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=98, exif=exif)
    assert b"Jane" in data.getvalue()
    (tmp_path / "1.jpg").write_bytes(data.getvalue())
    inventory = pd.DataFrame(
        [("h/1.jpg", "1.jpg", digest(tmp_path / "1.jpg"), "included")],
        columns=["case_id", "image", "sha256", "status"],
    )
    correct_cohort(inventory, tmp_path, tmp_path / "out", Options(images=Images(size=30, fit="crop")))
    for path in (tmp_path / "out").iterdir():
        assert b"Jane" not in path.read_bytes()
        assert "Jane".encode("utf-16-le") not in path.read_bytes()
    turned = np.rot90(image, -1)[5:35].astype(int)
    assert np.abs(open_store(tmp_path / "out").pixels[0] - turned).mean() < 6  # JPEG's loss


def test_command_line(cohort, tmp_path, capsys):
    inventory, folder = cohort
    inventory.to_parquet(tmp_path / "inventory.parquet")
    arguments = [
        "images.correct",
        "--options",
        '{"images": {"size": 20, "fit": "pad"}, "recipe": {"method": "macenko"}}',
        *("--inventory", str(tmp_path / "inventory.parquet"), "--images", str(folder)),
        *("--out", str(tmp_path / "out"), "--threads", "2"),
    ]
    assert run(arguments) == 0
    assert "correct: 5/5 images" in capsys.readouterr().out
    assert open_store(tmp_path / "out").pixels.shape == (5, 20, 20, 3)
    Path(folder / "smears/0.png").write_bytes(b"other")
    assert run(arguments) == 1
    assert "has changed since intake" in capsys.readouterr().err
    assert open_store(tmp_path / "out", verify=True).pixels.shape == (5, 20, 20, 3)
