"""The cohort table: what it returns, and that one reading tells every fault with its row and column."""

import subprocess
import sys
from pathlib import Path

import pytest

from marrowflow.cohorts.table import Cohort, read_cohorts
from marrowflow.errors import UserError

HEADER = "cohort\trole\tmanifest\thospital\tsource\n"
GOOD = "berlin\tdevelopment\tdata/berlin/manifest.csv\tBerlin\tarchive\n"


def write(folder: Path, text: str, name: str = "cohorts.tsv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_cohorts(path)
    return str(caught.value)


def test_rows_in_order_comments_passed_over(tmp_path):
    text = "# our hospitals\n" + HEADER + GOOD + "# new:\n\nBonn_2\texternal\tb/m.tsv\tBonn\t\n"
    assert read_cohorts(write(tmp_path, text)) == [
        Cohort("berlin", "development", "data/berlin/manifest.csv", "Berlin", "archive"),
        Cohort("Bonn_2", "external", "b/m.tsv", "Bonn", ""),
    ]


def test_commas_and_byte_order_mark(tmp_path):
    path = tmp_path / "cohorts.csv"
    path.write_bytes(b"\xef\xbb\xbf" + (HEADER + GOOD).replace("\t", ",").encode())
    assert read_cohorts(path)[0].name == "berlin"


@pytest.mark.parametrize(
    ("rows", "place", "said"),
    [
        (GOOD + "a-b\texternal\tm\tH\ts\n", "row 3, column 'cohort'", "'a-b'"),
        (GOOD + "all\texternal\tm\tH\ts\n", "row 3, column 'cohort'", "reserved"),
        (GOOD + "Development\texternal\tm\tH\ts\n", "row 3, column 'cohort'", "reserved"),
        (GOOD + "berlin\texternal\tm\tH\ts\n", "row 3, column 'cohort'", "row 2 already"),
        (GOOD + "Berlin\texternal\tm\tH\ts\n", "row 3, column 'cohort'", "row 2 already"),
        (GOOD + "x\texternl\tm\tH\ts\n", "row 3, column 'role'", "did you mean 'external'"),
        (GOOD + "x\texternal\t \tH\ts\n", "row 3, column 'manifest'", "blank"),
        (GOOD + "x\texternal\tm\t\ts\n", "row 3, column 'hospital'", "blank"),
        ("x\texternal\tm\tH\ts\n", "column 'role'", "no cohort is for development"),
        (GOOD + "x\texternal\tm\tH\n", "row 3", "4 cells under 5 columns"),
        ("", "header", "no row follows"),
    ],
)
def test_faulty_rows(tmp_path, rows, place, said):
    text = message(write(tmp_path, HEADER + rows))
    assert str(tmp_path / "cohorts.tsv") in text
    assert place in text
    assert said in text


def test_misspelt_column_names_the_one_meant(tmp_path):
    text = message(write(tmp_path, HEADER.replace("hospital", "Hospitals") + GOOD))
    assert "column 'Hospitals'" in text
    assert "rename it to 'hospital'" in text
    assert "column 'hospital' is missing" in text


SHARDED = HEADER.replace("\n", "\tshards\n")
HOME = GOOD.replace("\n", "\t\n")


def test_archives_lie_beside_their_manifest(tmp_path):
    far = "far\texternal\ts3://b/f/manifest.csv\tFar\t\tcells_{08..10}.tar\n"
    near = "near\texternal\tdata/near/manifest.csv\tNear\t\tone.tar two.tar\n"
    home, remote, local = read_cohorts(write(tmp_path, SHARDED + HOME + far + near))
    assert (home.shards, home.archives, home.folder) == ((), {}, "data/berlin")
    assert remote.archives == {f"cells_{n}": f"s3://b/f/cells_{n}.tar" for n in ("08", "09", "10")}
    assert (remote.manifest, remote.folder) == ("s3://b/f/manifest.csv", "")
    assert local.archives == {"one": "data/near/one.tar", "two": "data/near/two.tar"}


@pytest.mark.parametrize(
    ("manifest", "shards", "said"),
    [
        ("s3://b/m.csv", "", "row 3, column 'shards': a remote manifest's images are read from TAR archives"),
        ("s3://b/m.csv", "", "python -m marrowflow cohorts.shards"),
        ("https://a:b@h/m.csv", "x.tar", "row 3, column 'manifest': the URL https://h/m.csv bears"),
        ("m.csv", "x_{5..1}.tar", "row 3, column 'shards'"),
        ("gs://b/m.csv", "x.tar", "row 3, column 'manifest': gs:// is not read"),
    ],
)
def test_faulty_places(tmp_path, manifest, shards, said):
    row = f"far\texternal\t{manifest}\tFar\t\t{shards}\n"
    assert said in message(write(tmp_path, SHARDED + HOME + row))


def test_misspelt_shards(tmp_path):
    assert "rename it to 'shards'" in message(write(tmp_path, HEADER.replace("\n", "\tshard\n") + HOME))


def test_all_faults_at_once(tmp_path):
    rows = "a b\tdevelopment\tm\tH\ts\n\texternal\tm\tH\ts\nc\tboth\tm\tH\ts\n"
    text = message(write(tmp_path, HEADER + rows))
    assert [line.split(":")[0].strip() for line in text.splitlines()[1:]] == [
        "- row 2, column 'cohort'",
        "- row 3, column 'cohort'",
        "- row 4, column 'role'",
    ]


def test_line_numbers_count_comments(tmp_path):
    text = message(write(tmp_path, "# one\n# two\n" + HEADER + GOOD + "!\texternal\tm\tH\ts\n"))
    assert "row 5, column 'cohort'" in text


def test_missing_and_empty_file(tmp_path):
    assert "no such file" in message(tmp_path / "none.tsv")
    assert "empty" in message(write(tmp_path, "\n"))


def test_parse_time_stays_free_of_heavy_imports():
    code = "import sys, marrowflow.cohorts.table; print([m for m in ('pandas', 'numpy', 'cv2', 'torch') if m in sys.modules])"
    workflow = Path(__file__).parents[3] / "workflow"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(workflow)}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr
