"""The code digest follows imports, and nothing but contents counts."""

import os
import shutil
from pathlib import Path

import pytest

from marrowflow import provenance
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


NESTED = """
import marro.m00
def f():
    class C:
        import marro.m01
        async def g(self):
            from marro import m02
            return m02
if True:
    pass
elif True:
    from . import m03
else:
    from .. import nowhere
try:
    import marro.m04
except ImportError:
    import marro.m05
else:
    import marro.m06
finally:
    import marro.m07
with open("x") as x:
    import marro.m08
for i in ():
    import marro.m09
else:
    import marro.m10
while True:
    import marro.m11
match 1:
    case 1:
        import marro.m12
"""


def test_imports_are_found_wherever_a_statement_may_stand(package):
    names = [f"m{i:02}.py" for i in range(13)]
    for name in names:
        (package / name).write_text("")
    (package / "nested.py").write_text(NESTED)
    assert [p.name for p in sources_of("nested", package)] == [*names, "nested.py"]


def test_a_text_is_read_for_its_imports_once_however_many_steps_share_it(package):
    """Planning asks for the digests of forty steps; an edited text is another text."""
    provenance._imported_names.cache_clear()
    for module in ("learning.train", "learning.batches", "learning.train"):
        code_digest(module, package)
    # train, batches, far and the empty __init__ of their folder
    assert provenance._imported_names.cache_info().misses == 4
    edit(package, "far.py", "import marro.alone\n")
    assert package / "alone.py" in sources_of("learning.train", package)
    assert provenance._imported_names.cache_info().misses == 6


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
