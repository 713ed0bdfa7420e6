"""What a package holds, and what it must not."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from packed_study import MODELS, Packed, pack

from marrowflow.errors import UserError
from marrowflow.files import write_json
from marrowflow.learning import bundle
from marrowflow.learning.package import packed_sources
from marrowflow.learning.package_words import CODE_LICENCE
from marrowflow.learning.requirements import PINS, required, requirement_list
from marrowflow.provenance import PACKAGE

ROOT = Path(__file__).parents[3]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_it_holds_all_members_networks_and_the_lock_as_they_are(packed: Packed) -> None:
    for name in MODELS:
        for fold in "01":
            own = packed.file("training/sound", name, "stained", fold, "model.safetensors")
            assert (packed.package / "networks" / name / fold / own.name).read_bytes() == own.read_bytes()
    lock = packed.file("locked/sound/both/stained/threshold.json")
    assert (packed.package / bundle.LOCK).read_bytes() == lock.read_bytes()
    assert not list(packed.root.glob(".package*"))


def test_sha256sum_agrees_with_the_list(packed: Packed) -> None:
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", "checksums.sha256"],
        cwd=packed.package,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    listed = {
        line.split("  ", 1)[1] for line in (packed.package / "checksums.sha256").read_text().splitlines()
    }
    assert listed == set(contents(packed.package)) - {"checksums.sha256", "package.json"}


def test_the_same_study_gives_the_same_package(packed: Packed) -> None:
    first = contents(packed.package)
    pack(packed)
    assert contents(packed.package) == first
    # A workflow that writes it anew removes the files that it waits for; the rest is still a package.
    for name in (bundle.PACKAGE, bundle.CHECKSUMS, bundle.CARD):
        (packed.package / name).unlink()
    pack(packed)
    assert contents(packed.package) == first


def test_nothing_but_a_package_is_replaced(packed: Packed, tmp_path: Path) -> None:
    thesis = tmp_path / "documents"
    (thesis / "code").mkdir(parents=True)
    (thesis / "README.md").write_text("my only copy")
    with pytest.raises(UserError, match=r"documents holds README\.md, code.*deleted"):
        pack(packed, thesis)
    assert (thesis / "README.md").read_text() == "my only copy"
    before = contents(packed.package)
    stray = packed.package / "notes.txt"
    stray.write_text("mine")
    try:
        with pytest.raises(UserError, match=r"package holds notes\.txt.*deleted"):
            pack(packed)
        assert stray.read_text() == "mine"
    finally:
        stray.unlink()
    (tmp_path / "empty").mkdir()
    pack(packed, tmp_path / "empty")
    assert contents(tmp_path / "empty") == before


def test_a_place_that_cannot_be_written_to_is_refused(packed: Packed, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        pack(packed, tmp_path / "file")
    with pytest.raises(UserError, match="cannot be written"):
        pack(packed, tmp_path / "file/package")
    with pytest.raises(UserError, match="cannot be written"):
        pack(packed, Path("/proc/package"))
    assert contents(tmp_path) == {"file": b"mine"}


def test_no_path_and_no_image_of_the_study_is_in_it(packed: Packed) -> None:
    target = Path(packed.options["colour"]["stained"]["target"])
    everything = contents(packed.package)
    folder = str(packed.root.parent).encode()
    assert [name for name, content in everything.items() if folder in content] == []
    assert target.read_bytes() not in everything.values()
    preprocessing = json.loads(everything[bundle.PREPROCESSING])
    assert preprocessing["recipe"]["target"] is None
    assert len(preprocessing["target"]["mean"]) == 3


def test_the_card_says_what_is_known_and_what_is_not(packed: Packed) -> None:
    readme = (packed.package / "README.md").read_text()
    assert "Intended use: None." in readme
    assert "NOT PROVIDED: study.end_user" in readme
    assert "| warm | patient | auc | 0.750 (0.500 to 0.900) | 18 | 36 |" in readme
    assert "| warm | image | sensitivity | undefined | 18 | 36 |" in readme
    assert "delong" not in readme
    assert "| one | 0 | train | 4 (2) | 4 (2) | 4 (2) |" in readme


def test_licences_that_keep_commerce_out_stand_first(packed: Packed, tmp_path: Path) -> None:
    card_path = packed.file("training/sound/one/stained/0/card.json")
    before = card_path.read_text()
    card = json.loads(before)
    card["weights"] = {"source": "file w.pth", "sha256": "ab", "licence": "CC BY-NC 4.0"}
    try:
        write_json(card_path, card)
        pack(packed)
        for name in ("README.md", "LICENCES.md"):
            text = (packed.package / name).read_text()
            assert "No commercial use: one started from file w.pth, whose licence is CC BY-NC 4.0." in text
    finally:
        card_path.write_text(before)
        pack(packed)
    assert "No commercial use" not in (packed.package / "README.md").read_text()


def test_what_does_not_belong_together_is_refused(packed: Packed) -> None:
    before = contents(packed.package)
    with pytest.raises(UserError, match="not the recipe that development images were corrected by"):
        pack(packed, colour={"stained": {"method": "none"}})
    with pytest.raises(UserError, match="none of sound/three/stained"):
        pack(packed, members={"both": ["one", "three"]})
    target = Path(packed.options["colour"]["stained"]["target"])
    image = target.read_bytes()
    try:
        target.write_bytes((target.parent / "005.png").read_bytes())
        with pytest.raises(UserError, match="another image than the one that development images"):
            pack(packed)
    finally:
        target.write_bytes(image)
    assert contents(packed.package) == before
    assert not list(packed.root.glob(".package*"))


def test_a_package_that_a_kill_has_moved_aside_comes_back(packed: Packed) -> None:
    before = contents(packed.package)
    packed.package.rename(packed.package.with_name(".package.before"))
    with pytest.raises(UserError, match="not the recipe that development images were corrected by"):
        pack(packed, colour={"stained": {"method": "none"}})
    assert contents(packed.package) == before
    assert not list(packed.root.glob(".package*"))


def test_the_licence_of_the_code_is_the_projects() -> None:
    assert (ROOT / "LICENSE").read_text() == CODE_LICENCE


def test_the_requirement_list_is_what_the_packed_code_imports() -> None:
    names = {"cv2": "opencv-python-headless", "yaml": "pyyaml", "PIL": "pillow"}
    imported = set()
    for path in packed_sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    imported -= {*sys.stdlib_module_names, PACKAGE.name}
    assert {names.get(name, name) for name in imported} | {"pyarrow"} == set(PINS)
    pins = dict(
        line.split("==") for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line
    )
    assert {name: pins[name] for name in PINS} == PINS
    assert required(requirement_list({"torch": "2.13.0+cpu"})) == {**PINS, "torch": "2.13.0"}
