import json

import pytest
from split_inventories import copy_image, inventory, patients, stack

from marrowflow.errors import UserError
from marrowflow.splits.external_gate import check_external, main


@pytest.fixture
def both():
    """Ten development images (rows 0-9) and five external ones (rows 10-14)."""
    return stack(inventory("home", patients("AML", 10)), inventory("away", patients("AML", 5)))


def test_unlike_images_pass(both):
    assert check_external(both[:10], both[10:], 3) == {
        "n_development": 10,
        "n_external": 5,
        "distance": 3,
        "duplicates": 0,
    }


@pytest.mark.parametrize(("exact", "words"), [(True, "the same file as"), (False, "a near duplicate of")])
def test_copy_is_named_with_its_original_and_the_remedy(both, exact, words):
    copy_image(both, 4, 12, exact=exact)
    with pytest.raises(UserError, match=rf"away/0002.png is {words} home/0004.png(?s:.*)column eligible"):
        check_external(both[:10], both[10:], 3)


def test_an_external_image_is_named_once_with_the_first_that_it_copies(both):
    for copy in (6, 8, 12):
        copy_image(both, 4, copy)
    with pytest.raises(UserError) as stop:
        check_external(both[:10], both[10:], 3)
    assert str(stop.value).count("away/0002.png") == 1
    assert "home/0004.png" in str(stop.value)
    assert "home/0006.png" not in str(stop.value)


def test_copies_within_a_cohort_and_excluded_ones_pass(both):
    copy_image(both, 0, 1)
    copy_image(both, 13, 14)
    copy_image(both, 4, 12)
    both.loc[12, "status"] = "excluded"
    assert check_external(both[:10], both[10:], 3)["n_external"] == 4


def test_command_line(both, tmp_path):
    paths = [tmp_path / f"{name}.parquet" for name in ("a", "b", "x")]
    for path, rows in zip(paths, (both[:5], both[5:10], both[10:]), strict=True):
        rows.to_parquet(path)
    gate = tmp_path / "gate.json"
    arguments = ["--development", str(paths[0]), str(paths[1]), "--external", str(paths[2])]
    main([*arguments, "--options", '{"distance":3}', "--out", str(gate)])
    assert json.loads(gate.read_text())["n_development"] == 10
