"""Slides that scanners wrote, through intake, tissue, tiles, features and attention: needs the files of ../shared/data/wsi."""

import shutil
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest
import torch
from mapped import CLASSES, aggregator, map_of
from PIL import Image
from project import ROOT

from marrowflow.cohorts.intake import Options as IntakeOptions
from marrowflow.cohorts.intake import make_inventory
from marrowflow.errors import UserError
from marrowflow.slides import extract, place, survey
from marrowflow.slides.bags import Bags
from marrowflow.slides.intake import take_slides
from marrowflow.slides.picture import SIDE
from marrowflow.study_slides import Extractor, Tiling, Tissue

WSI = ROOT.parent / "shared/data/wsi"
CMU, TCGA, KIDNEY, BROKEN = (
    "cmu_small_region.svs",
    "tcga-cr-7395-01a-01-ts1.svs",
    "kidney-48-5.tif",
    "broken.svs",
)
MPP = {CMU: 0.499, TCGA: 0.25, KIDNEY: 0.5}
TILING = Tiling(magnification=10)
EXTRACTOR = Extractor(network="resnet18", weights="none", stage=3, batch_size=8)

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not WSI.is_dir(), reason=f"no real slides at {WSI.relative_to(ROOT.parent)}"),
]


def inventory_of(folder: Path, mpp: dict[str, float | None], **settings: object) -> pd.DataFrame:
    """Take the slides named, each with what the manifest says of its pixels."""
    rows = [
        {"image": name, "patient_id": name[:4], "label": CLASSES[i % 2], "mpp": size or ""}
        for i, (name, size) in enumerate(mpp.items())
    ]
    for name in mpp:
        if not (folder / name).exists():
            shutil.copyfile(WSI / name, folder / name)
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    options = IntakeOptions(classes=CLASSES, intake=settings)
    return make_inventory("h", folder / "manifest.csv", options, take=take_slides)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Three slides through intake, survey and placing; the broken one beside them."""
    folder = tmp_path_factory.mktemp("slides")
    sizes = {CMU: None, TCGA: MPP[TCGA], KIDNEY: MPP[KIDNEY], BROKEN: 0.5}
    inventory = inventory_of(folder, sizes)
    surveyed = survey.survey(
        survey.Options(tissue=Tissue()), inventory, folder, False, 2, folder / "pictures"
    )
    surveyed.to_csv(folder / "tissue.csv", index=False)
    options = place.Options(tiling=TILING)
    pictures = folder / "pictures"
    slides, tiles = place.place(options, inventory, folder, surveyed, pictures, False, folder / "o")
    return folder, inventory, slides.set_index("case_id"), tiles


def test_what_the_files_say_of_their_pixels_is_taken_and_what_they_do_not_is_asked_for(tmp_path):
    assert inventory_of(tmp_path, {CMU: None})["mpp"].item() == pytest.approx(0.499)
    for name in (TCGA, KIDNEY):
        with pytest.raises(UserError, match=rf"{name}: the file does not say .*column 'mpp'"):
            inventory_of(tmp_path, {CMU: None, name: None})
    with pytest.raises(UserError, match=r"the file says 0.499 µm a pixel, column 'mpp' 0.25"):
        inventory_of(tmp_path, {CMU: 0.25})


def test_the_broken_one_is_an_exclusion(cohort):
    _, inventory, slides, _ = cohort
    told = inventory.set_index("image")
    assert told["status"].to_dict() == dict.fromkeys(MPP, "included") | {BROKEN: "excluded"}
    assert told["reason"][BROKEN].startswith("unreadable: ")
    assert f"h/{BROKEN}" not in slides.index


@pytest.mark.parametrize("name", [CMU, TCGA])
def test_tiles_lie_on_what_is_coloured(cohort, name):
    """Against a grid laid by hand, and Pillow's saturation of what OpenSlide reads there."""
    folder, _, slides, tiles = cohort
    own = tiles[tiles["case_id"] == f"h/{name}"]
    span = 256 * 1.0 / MPP[name]  # 10× is 1 µm a pixel
    with openslide.OpenSlide(folder / name) as scan:
        width, height = scan.dimensions
        grid = {
            (round(i * span), round(j * span))
            for i in range(int(width / span))
            for j in range(int(height / span))
        }
        kept = set(map(tuple, own[["x", "y"]].to_numpy().tolist()))
        assert kept
        assert kept < grid
        assert slides["tiles"][f"h/{name}"] == len(kept)

        def saturation(corner: tuple[int, int]) -> float:
            region = scan.read_region(corner, 0, (round(span), round(span))).convert("RGB").resize((64, 64))
            return float(np.asarray(region.convert("HSV"))[..., 1].mean())

        inside = [saturation(corner) for corner in kept]
        outside = [saturation(corner) for corner in grid - kept]
    assert np.mean(inside) > 2 * np.mean(outside)
    # The mean of a tile is that of its tissue and its glass: a border of either is no tile's fault.
    assert np.median(inside) > np.max(outside) / 1.5


@pytest.mark.parametrize("name", [CMU, TCGA])
def test_features_and_a_map_of_attention(cohort, tmp_path, name):
    """The map against attention laid over the slide by hand, its best tile against what OpenSlide reads there."""
    folder, inventory, slides, tiles = cohort
    case = f"h/{name}"
    one = slides.loc[[case]].reset_index()
    sees = extract.seer(EXTRACTOR, TILING.size, tmp_path / "features", tmp_path / "state", 2)
    options = extract.Options(extractor=EXTRACTOR, tiling=TILING)
    extract.extract(options, inventory, folder, one, tiles, sees).to_parquet(tmp_path / "bags.parquet")
    bag = Bags([tmp_path / "bags.parquet"], tmp_path / "features").of(case)
    assert bag.features.shape == (slides["tiles"][case], 256)
    assert np.isfinite(bag.features.astype(np.float32)).all()

    network = aggregator(256)
    row = map_of(folder, inventory, case, TILING, EXTRACTOR, sees, network, tmp_path / "out")
    assert row["reason"] == ""
    drawn = {what: np.asarray(Image.open(tmp_path / "out" / row[what])) for what in ("map", "top")}
    assert drawn["map"].shape == (SIDE, SIDE)

    # By hand: the mean, over the tiles that cover a place, of their attention between its least and its most.
    entry = next(p for p in (tmp_path / "features").rglob("features.npy") if len(np.load(p)) == row["tiles"])
    with torch.no_grad():
        attention = network(torch.from_numpy(np.load(entry)).float()).attention[0].numpy()
    grey = 255 * (attention - attention.min()) / (attention.max() - attention.min())
    corners = pd.read_parquet(entry.parent / "tiles.parquet")[["x", "y"]].to_numpy()
    with openslide.OpenSlide(folder / name) as scan:
        width, height = scan.dimensions
    scale, span = max(width, height) / SIDE, 256 / MPP[name]
    checked = covered = 0
    for i, j in np.random.default_rng(0).integers(0, SIDE, (3000, 2)):
        place = np.array([j + 0.5, i + 0.5]) * scale - (max(width, height) - np.array([width, height])) / 2
        off = place - corners
        # Within two of the map's pixels of a tile's border rounding decides.
        if (np.minimum(np.abs(off), np.abs(off - span)) < 2 * scale).any():
            continue
        over = ((off > 0) & (off < span)).all(axis=1)
        expected = grey[over].mean() if over.any() else 0.0
        assert abs(float(drawn["map"][i, j]) - expected) <= 1
        checked, covered = checked + 1, covered + bool(over.any())
    assert checked > 1000
    assert covered > 100

    # The first of the top tiles is what OpenSlide reads where attention is largest.
    with openslide.OpenSlide(folder / name) as scan:
        level = scan.get_best_level_for_downsample(1 / MPP[name])
        read = round(span / scan.level_downsamples[level])
        corner = tuple(map(int, corners[attention.argmax()]))
        best = scan.read_region(corner, level, (read, read)).convert("RGB")
    shown_tile = drawn["top"][:, :96].astype(float)
    assert np.abs(shown_tile - np.asarray(best.resize((96, 96), Image.Resampling.BOX), float)).mean() < 6
