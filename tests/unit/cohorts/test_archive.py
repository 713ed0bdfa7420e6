"""TAR archives as others may hand them over: what is read, what is never followed, and damage that is never silent."""

import gzip
import io
import subprocess
import tarfile

import pytest

from marrowflow.cohorts.archive import Archive
from marrowflow.errors import UserError


def member(name, data=b"image", kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    return info, data


def write(path, *members):
    with tarfile.open(path, "w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


def test_reads_what_gnu_tar_packed(tmp_path):
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    content = {f"deep/{'n' * 150}{i}.png": bytes([i]) * (i * 300) for i in range(5)}
    for name, data in content.items():
        (tmp_path / "in" / name).write_bytes(data)
    subprocess.run(["tar", "cf", "../a.tar", "."], cwd=tmp_path / "in", check=True)
    with Archive(tmp_path / "a.tar") as archive:
        assert {name: found.read_bytes() for name, (found,) in archive.files.items()} == content
        assert archive.unsafe == 0
        assert not archive.others


def test_members_go_by_their_normal_path(tmp_path):
    with Archive(write(tmp_path / "a.tar", member("./x//y.png"))) as archive:
        assert archive.of("x/y.png") == archive.of("./x/y.png") != []
        assert archive.of("y.png") == []


@pytest.mark.parametrize("name", ["/etc/x.png", "../x.png", "a/../x.png", ".."])
def test_unsafe_names_are_nobodys_image(tmp_path, name):
    with Archive(write(tmp_path / "a.tar", member(name), member("ok.png"))) as archive:
        assert list(archive.files) == ["ok.png"]
        assert archive.unsafe == 1


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a hard link (tar --hard-dereference packs the file)"),
        (tarfile.FIFOTYPE, "no plain file"),
        (tarfile.CHRTYPE, "no plain file"),
    ],
)
def test_links_and_devices_are_not_followed(tmp_path, kind, said):
    (tmp_path / "secret.png").write_bytes(b"secret")
    hostile = member("x.png", kind=kind, link=str(tmp_path / "secret.png"))
    with Archive(write(tmp_path / "a.tar", hostile, member("ok.png"))) as archive:
        assert archive.of("x.png") == []
        assert archive.others == {"x.png": said}


def test_a_sparse_file_is_no_plain_file(tmp_path):
    with (tmp_path / "s.png").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    subprocess.run(["tar", "-S", "-cf", "a.tar", "s.png"], cwd=tmp_path, check=True)
    with Archive(tmp_path / "a.tar") as archive:
        assert archive.of("s.png") == []
        assert list(archive.others) == ["s.png"]


def test_every_copy_of_a_name_is_told(tmp_path):
    with Archive(write(tmp_path / "a.tar", member("x.png", b"1"), member("./x.png", b"2"))) as archive:
        assert [found.read_bytes() for found in archive.of("x.png")] == [b"1", b"2"]


def test_every_cut_is_noticed(tmp_path):
    whole = write(tmp_path / "a.tar", member("a.png", b"1" * 700), member("b.png", b"2" * 10)).read_bytes()
    cut = tmp_path / "cut.tar"
    # Header, data and padding of both members end at 3 and 2 blocks; the first zero block may be the last one.
    for length in [*range(0, 512 * 5 + 512, 64), 512 * 5 + 511]:
        cut.write_bytes(whole[:length])
        if length >= 512 * 6:
            continue
        with pytest.raises(UserError, match=r"cut\.tar .*no whole TAR archive"), Archive(cut):
            pass
    cut.write_bytes(whole[: 512 * 6])
    with Archive(cut) as archive:
        assert list(archive.files) == ["a.png", "b.png"]


def test_a_damaged_header_in_the_middle_is_noticed(tmp_path):
    data = bytearray(write(tmp_path / "a.tar", member("a.png"), member("b.png")).read_bytes())
    data[1024:1100] = b"\xff" * 76
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(UserError, match="no whole TAR archive"), Archive(tmp_path / "a.tar"):
        pass


def test_a_forged_size_does_not_read_for_ever(tmp_path):
    info, data = member("a.png")
    info.pax_headers = {"size": "-512"}
    path = write(tmp_path / "a.tar", (info, data), member("b.png"))
    with pytest.raises(UserError, match="no whole TAR archive"), Archive(path):
        pass


def header(kind, size):
    """Return a header of 512 bytes with a size that need not be that of what follows."""
    info = tarfile.TarInfo("x.png")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "forged",
    [5000 * header(tarfile.XHDTYPE, 0), header(tarfile.GNUTYPE_LONGNAME, 2**62)],
    ids=["a chain of headers", "a name larger than the memory"],
)
@pytest.mark.parametrize("before", [[], [member("a.png")]], ids=["first", "later"])
def test_headers_that_ask_too_much_are_damage(tmp_path, forged, before):
    path = write(tmp_path / "a.tar", *before)
    whole = path.read_bytes()[: 1024 * len(before)]
    path.write_bytes(whole + forged + header(tarfile.REGTYPE, 0) + bytes(1024))
    with pytest.raises(UserError, match="no whole TAR archive: a header without end"), Archive(path):
        pass


def test_compressed_and_missing_archives_are_called_so(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(gzip.compress(write(tmp_path / "b.tar", member("x.png")).read_bytes()))
    with pytest.raises(UserError, match=r"a\.tar is compressed \(gzip\)"), Archive(path):
        pass
    with pytest.raises(UserError, match=r"none\.tar cannot be opened"), Archive(tmp_path / "none.tar"):
        pass


def test_an_archive_that_shrinks_while_it_is_read(tmp_path):
    path = write(tmp_path / "a.tar", member("a.png", b"1" * 5000))
    with Archive(path) as archive:
        path.open("r+b").truncate(2000)
        with pytest.raises(UserError, match=r"a\.tar cannot be read at a\.png .*became shorter"):
            archive.of("a.png")[0].read_bytes()


def test_an_empty_archive_is_whole(tmp_path):
    with Archive(write(tmp_path / "a.tar")) as archive:
        assert not archive.files
