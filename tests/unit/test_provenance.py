"""The code digest follows imports, and nothing but contents counts."""

import os
import shutil
from pathlib import Path

import pytest

from marrowflow.errors import UserError
from marrowflow.provenance import PACKAGE, code_digest, sources_of

FILES = {
    "__init__.py": '__version__ = "1"\n',
    "config.py": "DEFAULT = 1\n",
    "alone.py": "x = 1\n",
    "far.py": "y = 1\n",
    "learning/__init__.py": "",
    "learning/train.py": "from marro.learning import batches\nfrom marro import config\nimport numpy\n",
    "learning/batches.py": "def read():\n    from ..far import y\n    return y\n",
    "learning/predict.py": "import marro.alone\n",
    "reporting/__init__.py": "",
    "reporting/page.py": "z = 1\n",
    "reporting/templates/page.html": "<p>",
}


@pytest.fixture
def package(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "marro" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "marro"


def edit(package, name, text="changed = True\n"):
    (package / name).write_text((package / name).read_text() + text)


def test_sources_are_the_module_and_all_it_imports(package):
    names = [p.relative_to(package).as_posix() for p in sources_of("learning.train", package)]
    assert names == ["far.py", "learning/__init__.py", "learning/batches.py", "learning/train.py"]


@pytest.mark.parametrize(
    ("edited", "moved"),
    [
        ("learning/train.py", {"learning.train"}),
        ("learning/batches.py", {"learning.train"}),
        ("far.py", {"learning.train"}),
        ("alone.py", {"learning.predict"}),
        ("learning/__init__.py", {"learning.train", "learning.predict"}),
        ("reporting/templates/page.html", {"reporting.page"}),
        ("config.py", set()),
        ("__init__.py", set()),
    ],
)
def test_an_edit_moves_exactly_the_digests_that_reach_it(package, edited, moved):
    modules = ["learning.train", "learning.predict", "reporting.page"]
    before = {m: code_digest(m, package) for m in modules}
    edit(package, edited)
    assert {m for m in modules if code_digest(m, package) != before[m]} == moved


def test_touching_copying_and_line_endings_leave_the_digest(package, tmp_path):
    before = code_digest("learning.train", package)
    os.utime(package / "far.py", (0, 0))
    assert code_digest("learning.train", package) == before
    elsewhere = tmp_path / "elsewhere" / "marro"
    shutil.copytree(package, elsewhere)
    (elsewhere / "far.py").write_bytes(b"y = 1\r\n")
    (elsewhere / "learning" / "__pycache__").mkdir()
    (elsewhere / "learning" / "__pycache__" / "train.cpython-311.pyc.140023").write_bytes(b"x")
    (elsewhere / "learning" / ".DS_Store").write_bytes(b"x")
    assert code_digest("learning.train", elsewhere) == before


def test_a_module_that_is_not_there_is_an_error(package):
    with pytest.raises(UserError, match=r"marro\.learning\.tain"):
        code_digest("learning.tain", package)


def test_our_own_init_holds_nothing_but_the_version():
    """It is left out of the digests, so it may hold nothing that a result depends on."""
    text = (Path(__file__).parents[2] / "workflow/marrowflow/__init__.py").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith('"""')]
    assert len(lines) == 1
    assert lines[0].startswith("__version__")


FRONT = ["cohorts.intake", "images.correct", "images.augment", "splits.partition", "splits.leakage"]
FRONT += [
    "learning.train",
    "learning.predict",
    "learning.predict_external",
    "learning.combine",
    "learning.lock",
]
FRONT += ["choices.primary", "choices.seal", "cohorts.arrival", "readers"]
FRONT += ["learning.embed", "learning.explain", "learning.package", "learning.apply"]


@pytest.mark.parametrize("module", FRONT)
def test_nothing_before_the_prediction_table_knows_of_statistics_or_reports(module):
    """So edited statistics run accuracy and reports again, and nothing else."""
    folders = {path.relative_to(PACKAGE).parts[0] for path in sources_of(module)}
    assert not folders & {"statistics", "reporting"}


def test_statistics_know_nothing_of_pixels():
    folders = {path.relative_to(PACKAGE).parts[0] for path in sources_of("statistics.accuracy")}
    assert not folders & {"learning", "images", "splits", "cohorts", "reporting"}
