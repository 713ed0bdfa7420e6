"""One environment a rule, lean and pinned; the same pins for pip."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from marrowflow.provenance import PACKAGE, sources_of

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
RULES = re.findall(
    r"^rule (\w+):(.*?)(?=^rule |\Z)",
    "\n\n".join(p.read_text() for p in sorted((ROOT / "workflow/rules").glob("*.smk"))),
    re.M | re.S,
)

# conda-forge's name -> PyPI's, where they differ
PYPI = {
    "pytorch": "torch",
    "py-opencv": "opencv-python-headless",
    "matplotlib-base": "matplotlib",
    "openslide": "openslide-bin",
}
# what is imported -> conda-forge's name, where they differ
CONDA = {
    "cv2": "py-opencv",
    "torch": "pytorch",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "PIL": "pillow",
    "matplotlib": "matplotlib-base",
    "openslide": "openslide-python",
}
# Versions that both conda-forge and PyPI have, and that work together on this Python.
PROVEN = {
    "pytorch": "2.12.1",
    "torchvision": "0.27.1",
    "timm": "1.0.26",
    "py-opencv": "4.13.0",
    "numpy": "2.4.6",
    "scipy": "1.17",
    "pandas": "3.0.3",
    "pyarrow": "25.0.0",
    "scikit-learn": "1.8.0",
    "matplotlib-base": "3.10",
    "pyyaml": "6.0.3",
    "jinja2": "3.1.6",
    "pillow": "12.2.0",
    "tqdm": "4.67.3",
    "openslide": "4.0.0",
    "openslide-python": "1.4.3",
}


def dependencies(path):
    """Return name -> version (without a build string) of an environment file."""
    pins = {}
    for text in yaml.safe_load(path.read_text())["dependencies"]:
        name, _, version = text.partition("=")
        pins[name.strip()] = version.partition("=")[0].strip()
    return pins


def requirements(path="requirements.txt"):
    lines = (ROOT / path).read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_peers_are_compared_on_the_same_pins():
    ours, peers = requirements(), requirements("tests/benchmarks/requirements-peers.txt")
    shared = ours.keys() & peers.keys()
    assert {"numpy", "scipy", "pandas"} <= shared
    assert {name: ours[name] for name in shared} == {name: peers[name] for name in shared}


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda p: p.stem)
def test_an_environment_is_pinned_as_for_pip(path):
    content = yaml.safe_load(path.read_text())
    assert content["channels"] == ["conda-forge", "nodefaults"]
    pip = requirements()
    for name, version in dependencies(path).items():
        if name == "python":
            assert version == "3.12"
        elif name != "pip":
            # PyPI's OpenCV counts its wheels in a fourth place
            assert re.fullmatch(re.escape(version) + r"(\.\d+)?", pip[PYPI.get(name, name)]), name


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda p: p.stem)
def test_an_environment_asks_conda_forge_for_proven_versions(path):
    for text in yaml.safe_load(path.read_text())["dependencies"]:
        if text == "pip":
            continue
        name, version, build = re.fullmatch(r"([a-z0-9-]+) =([\d.]+)(?:=(\S+))?", text).groups()
        # conda-forge's first choice among OpenCV's builds is the one with Qt.
        assert build == ("headless_*" if name == "py-opencv" else None)
        assert f"{version}.".startswith(f"{PROVEN.get(name, version)}."), text


def test_conda_forge_and_pip_call_nothing_by_the_others_name():
    conda = {name for path in ENVIRONMENTS for name in dependencies(path)}
    assert not conda & {*PYPI.values(), "opencv", "libopencv", "seaborn"}
    assert not requirements().keys() & PYPI.keys()


def test_environments_with_the_same_list_are_the_same_bytes():
    # Snakemake names an environment by its file's bytes: equal files make one environment for several rules.
    files = {}
    for path in ENVIRONMENTS:
        files.setdefault(frozenset(dependencies(path)), set()).add(path.read_text())
    assert [texts for texts in files.values() if len(texts) > 1] == []


def test_no_requirement_is_a_version_that_breaks():
    # 0.14.5 cannot be imported beside pandas 3.
    assert requirements("requirements-dev.txt")["statsmodels"] == "0.14.6"


def test_every_pip_pin_is_in_an_environment():
    used = {PYPI.get(name, name) for path in ENVIRONMENTS for name in dependencies(path)}
    assert set(requirements()) <= used


def test_every_rule_has_an_environment_of_its_own():
    named = {rule: re.search(r'conda:\s+"\.\./\.\./envs/(\w+)\.yaml"', body) for rule, body in RULES}
    assert {rule: found and found[1] for rule, found in named.items()} == {rule: rule for rule, _ in RULES}
    assert {path.stem for path in ENVIRONMENTS} == {rule for rule, _ in RULES}


@pytest.mark.parametrize(("rule", "body"), RULES, ids=[rule for rule, _ in RULES])
def test_an_environment_holds_what_the_rules_code_imports_and_no_more(rule, body):
    module = re.search(r'code=code\("([\w.]+)"\)', body)[1]
    own = PACKAGE.name
    imported = set()
    for path in [*sources_of(module), PACKAGE / "config.py", PACKAGE / "__main__.py"]:
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    import sys

    needed = {CONDA.get(name, name) for name in imported - {own} - set(sys.stdlib_module_names)}
    # The Python package is a face of the C library.
    needed |= {"openslide"} & {name.removesuffix("-python") for name in needed}
    # pandas reads Parquet through pyarrow without an import of ours
    held = set(dependencies(ROOT / "envs" / f"{rule}.yaml")) - {"python", "pip"}
    assert needed | {"pyarrow"} == held | {"pyarrow"}
