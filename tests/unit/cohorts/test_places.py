"""Where a hospital's files lie: archives' names spelt out, and URLs that would give a secret away."""

import pytest

from marrowflow.cohorts.places import MOST_SHARDS, beside, expand_shards, is_remote, plugin_of, url_fault


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("cells.tar", ["cells.tar"]),
        ("a.tar b.tar,c.tar,  d.tar", ["a.tar", "b.tar", "c.tar", "d.tar"]),
        ("cells_{0..2}.tar", ["cells_0.tar", "cells_1.tar", "cells_2.tar"]),
        ("cells_{8..11}.tar", ["cells_8.tar", "cells_9.tar", "cells_10.tar", "cells_11.tar"]),
        ("{008..010}-x.tar", ["008-x.tar", "009-x.tar", "010-x.tar"]),
        ("x{7..7}.tar y.tar", ["x7.tar", "y.tar"]),
    ],
)
def test_names_and_ranges(text, names):
    assert list(expand_shards(text)) == names


def test_ranges_are_those_of_the_shell():
    import subprocess

    for text in ("cells_{000..013}.tar", "b{7..12}.tar"):
        said = subprocess.run(
            ["bash", "-c", f"echo {text}"], capture_output=True, text=True, check=True
        ).stdout
        assert list(expand_shards(text)) == said.split()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cells_{3..1}.tar", "upwards"),
        ("cells_{01..3}.tar", "as many digits"),
        ("cells_{a..c}.tar", "not understood"),
        ("cells_{0..1}_{0..1}.tar", "not understood"),
        ("cells_{0,1}.tar", "not understood"),
        ("cells_{0..1.tar", "not understood"),
        ("cells_{0..99999999999}.tar", f"more than {MOST_SHARDS}"),
        ("a{1..400}.tar b{1..400}.tar", f"more than {MOST_SHARDS}"),
        ("cells_0.tar cells_{0..1}.tar", "named twice"),
        ("cells.tar.gz", "compressed"),
        ("cells.tgz", "compressed"),
        ("../cells.tar", "not the name of an archive beside"),
        ("/data/cells.tar", "not the name of an archive beside"),
        ("sub/cells.tar", "not the name of an archive beside"),
        (".cells.tar", "not the name of an archive beside"),
        ("cells*.tar", "not the name of an archive beside"),
        ("s3://b/cells.tar", "not the name of an archive beside"),
    ],
)
def test_names_that_are_refused(text, said):
    with pytest.raises(ValueError, match=said):
        expand_shards(text)


def test_what_is_remote_and_who_fetches_it():
    assert not is_remote("resources/demo/alpha/manifest.csv")
    assert not is_remote("/data/s3/manifest.csv")
    for url, plugin in [
        ("s3://b/m.csv", "s3"),
        ("http://h/m.csv", "http"),
        ("https://h:8443/a/m.csv", "http"),
    ]:
        assert is_remote(url)
        assert url_fault(url) is None
        assert plugin_of(url) == plugin


def test_beside_a_manifest():
    assert beside("s3://bucket/a/b/manifest.csv", "x.tar") == "s3://bucket/a/b/x.tar"
    assert beside("data/manifest.csv", "x.tar") == "data/x.tar"
    assert beside("manifest.csv", "x.tar") == "x.tar"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/m.csv", "ftp:// is not read"),
        ("s3://bucket", "does not name a file"),
        ("s3://bucket/folder/", "does not name a file"),
        ("s3:///m.csv", "does not name a file"),
        ("http://host/a/../m.csv", "does not name a file"),
        ("http://host//m.csv", "does not name a file"),
        ("s3://bucket/{a}/m.csv", "brace"),
        ("http://[host/m.csv", "no URL"),
    ],
)
def test_urls_that_are_refused(url, said):
    assert said in url_fault(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://anna:hunter2@host/m.csv",
        "s3://hunter2@bucket/m.csv",
        "https://host/m.csv?X-Amz-Signature=hunter2",
        "https://host/m.csv#hunter2",
        "https://host/m.csv?",
    ],
)
def test_no_secret_is_taken_or_repeated(url):
    fault = url_fault(url)
    assert "would end up in the results" in fault
    assert "hunter2" not in fault
    assert "m.csv" in fault
