"""Images in archives: packed, measured and taken in as the same images in a folder, byte for byte."""

import errno
import io
import logging
import subprocess
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from marrowflow.__main__ import main as marrowflow
from marrowflow.cohorts.measured import measure_archive
from marrowflow.cohorts.shards import main as pack
from marrowflow.cohorts.shards import pack_shards
from marrowflow.errors import UserError

OPTIONS = '{"classes": ["AML", "ALL"]}'


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Seven rows in two folders: of the files one is cut, one is tiny, one is a copy and one is not an image."""
    folder = tmp_path / "site"
    (folder / "sub").mkdir(parents=True)
    for i, name in enumerate(["b.png", "sub/é.png", "a.png", "tiny.png"]):
        side = 20 if name == "tiny.png" else 70
        noise = np.random.default_rng(i).normal(0, 1, (side, side, 3))
        image = cv2.GaussianBlur(noise, (0, 0), 5)
        cv2.imencode(".png", np.clip(128 + 50 * image / image.std(), 0, 255).astype(np.uint8))[1].tofile(
            folder / name
        )
    (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "cut.png").write_bytes((folder / "b.png").read_bytes()[:-500])
    (folder / "text.png").write_text("no image")
    rows = [
        "b.png,AML",
        "sub/é.png,ALL",
        "a.png,AML",
        "tiny.png,ALL",
        "./copy.png,AML",
        "cut.png,ALL",
        "text.png,AML",
    ]
    (folder / "manifest.csv").write_text("image,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return folder


def tables(packed: Path, names) -> list[Path]:
    """Measure archives by the command that the rule runs."""
    made = []
    for name in names:
        made.append(packed.parent / "measured" / name.replace(".tar", ".parquet"))
        words = [
            "--manifest",
            str(packed / "manifest.csv"),
            "--archive",
            str(packed / name),
            "--threads",
            "3",
        ]
        assert marrowflow(["cohorts.measure", *words, "--out", str(made[-1])]) == 0
    return made


def ingest(manifest: Path, out: Path, *measured: Path) -> int:
    words = ["--options", OPTIONS, "--cohort", "h", "--manifest", str(manifest), "--out", str(out)]
    return marrowflow(["cohorts.intake", *words, "--measured", *map(str, measured)])


def repack(archive: Path, *names_and_data: tuple[str, bytes]) -> None:
    with tarfile.open(archive, "a") as tar:
        for name, data in names_and_data:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_the_inventory_is_that_of_the_folder(site, tmp_path):
    assert ingest(site / "manifest.csv", tmp_path / "folder.parquet") == 0
    expected = (tmp_path / "folder.parquet").read_bytes()
    assert pd.read_parquet(tmp_path / "folder.parquet")["reason"].str.contains("unreadable").sum() == 2
    for size in (1, 3, 100):
        packed = tmp_path / str(size) / "packed"
        measured = tables(packed, pack_shards(site / "manifest.csv", packed, size))
        assert ingest(packed / "manifest.csv", tmp_path / "shards.parquet", *measured) == 0
        assert (tmp_path / "shards.parquet").read_bytes() == expected


def test_packing_twice_gives_the_same_bytes_whatever_the_files_times(site, tmp_path):
    first = pack_shards(site / "manifest.csv", tmp_path / "one", 3)
    for path in site.rglob("*.png"):
        path.touch()
        path.chmod(0o600)
    assert pack_shards(site / "manifest.csv", tmp_path / "two", 3) == first
    assert [f"manifest_{i}.tar" for i in range(3)] == first
    for name in [*first, "manifest.csv"]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    listed = subprocess.run(
        ["tar", "--numeric-owner", "-tvf", tmp_path / "one" / first[0]], capture_output=True, text=True, check=True,
        env={"TZ": "UTC", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    ).stdout  # fmt: skip
    assert [line.split()[1] for line in listed.splitlines()] == ["0/0"] * 3
    assert listed.count("1970-01-01") == 3
    assert [line.split()[-1] for line in listed.splitlines()] == ["b.png", "sub/é.png", "a.png"]


def test_the_printed_line_is_one_that_the_cohort_table_takes(site, tmp_path, capsys):
    from marrowflow.cohorts.table import read_cohorts

    pack(["--manifest", str(site / "manifest.csv"), "--out", str(tmp_path / "p"), "--images-per-shard", "1"])
    header, line = [text for text in capsys.readouterr().out.splitlines() if "\t" in text]
    (tmp_path / "c.tsv").write_text(f"{header}\n{line.replace('external', 'development')}\n")
    (cohort,) = read_cohorts(tmp_path / "c.tsv")
    assert cohort.manifest == (tmp_path / "p/manifest.csv").as_posix()
    assert sorted(cohort.shards) == sorted(p.name for p in (tmp_path / "p").glob("*.tar"))
    assert len(cohort.shards) == 7


def test_packing_refuses_what_the_intake_would(site, tmp_path):
    with (site / "manifest.csv").open("a") as manifest:
        manifest.write("gone.png,AML\n../up.png,AML\nb.png,AML\n")
    with pytest.raises(UserError) as caught:
        pack_shards(site / "manifest.csv", tmp_path / "p", 3)
    assert "'gone.png' does not exist" in str(caught.value)
    assert "leaves the manifest's folder" in str(caught.value)
    assert "stands in row 2 already" in str(caught.value)
    assert not (tmp_path / "p").exists()


def test_an_image_that_cannot_be_read_while_packing_is_named(site, tmp_path, monkeypatch):
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        if path.name == "a.png":
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(UserError, match=r"site/a\.png cannot be read \(Input/output error\)"):
        pack_shards(site / "manifest.csv", tmp_path / "packed", 100)
    assert list((tmp_path / "packed").iterdir()) == []


def test_packing_into_a_folder_with_files_is_refused(site):
    with pytest.raises(UserError, match="no empty folder"):
        pack_shards(site / "manifest.csv", site, 3)


def test_an_image_in_no_archive_or_in_two(site, tmp_path, capsys):
    packed = tmp_path / "packed"
    names = pack_shards(site / "manifest.csv", packed, 3)
    repack(packed / names[1], ("a.png", b"another"))
    repack(packed / names[2], ("text.png", b"again"))
    assert ingest(packed / "manifest.csv", tmp_path / "i.parquet", *tables(packed, names)) == 1
    said = capsys.readouterr().err
    assert f"{packed / 'manifest.csv'} cannot be used" in said
    assert "row 4, column 'image': 'a.png' is there 2 times, in manifest_0.tar, manifest_1.tar" in said
    assert "row 8, column 'image': 'text.png' is there 2 times, in manifest_2.tar, manifest_2.tar" in said
    assert ingest(packed / "manifest.csv", tmp_path / "i.parquet", *tables(packed, names[:1])) == 1
    said = capsys.readouterr().err
    assert "row 5, column 'image': 'tiny.png' is in none of the archives" in said
    assert "'b.png'" not in said
    assert not (tmp_path / "i.parquet").exists()


def test_what_the_manifest_does_not_list_is_not_read(site, tmp_path, caplog):
    packed = tmp_path / "packed"
    (name,) = pack_shards(site / "manifest.csv", packed, 100)
    repack(packed / name, ("other.png", b"x"), ("../out.png", b"x"), ("/etc/y.png", b"x"))
    with caplog.at_level(logging.INFO):
        table = measure_archive(packed / name, packed / "manifest.csv")
    assert len(table) == 7
    assert "7 of its 8 files are listed" in caplog.text
    assert "3 members that the manifest does not list were not read" in caplog.text
    assert "2 with absolute names" in caplog.text


def test_a_listed_link_is_refused_with_its_row(site, tmp_path):
    info = tarfile.TarInfo("a.png")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.addfile(info)
    with pytest.raises(
        UserError, match=r"row 4, column 'image': 'a.png' is a link in .*x\.tar, which is not followed"
    ):
        measure_archive(tmp_path / "x.tar", site / "manifest.csv")


def test_an_archive_without_a_listed_image_has_an_empty_table_of_the_same_types(site, tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w"):
        pass
    packed = tmp_path / "packed"
    (name,) = pack_shards(site / "manifest.csv", packed, 100)
    empty = measure_archive(tmp_path / "x.tar", site / "manifest.csv")
    full = measure_archive(packed / name, packed / "manifest.csv")
    assert len(empty) == 0
    assert empty.dtypes.to_dict() == full.dtypes.to_dict()


def test_the_check_finds_what_the_intake_would_before_any_archive_is_there(site, tmp_path, capsys):
    manifest = site / "alone" / "manifest.csv"
    manifest.parent.mkdir()
    manifest.write_text((site / "manifest.csv").read_text())

    def check():
        words = [
            "--options",
            OPTIONS,
            "--cohort",
            "h",
            "--manifest",
            str(manifest),
            "--out",
            str(tmp_path / "c.json"),
        ]
        return marrowflow(["cohorts.check", *words])

    assert check() == 0
    assert '"images": 7' in (tmp_path / "c.json").read_text()
    manifest.write_text("image,label,surname\na.png,AML,x\nb.png,CML,x\n../c.png,ALL,x\n")
    assert check() == 1
    said = capsys.readouterr().err
    assert "surname" in said and "'CML'" in said and "leaves the manifest's folder" in said
