"""Environments made by Snakemake out of a local channel, and what the jobs in them imported.

The channel's builder and the stand-in for conda lie in ``../shared/hpc/conda``, beside the checkout. The channel holds
PyPI's builds of the pinned versions under conda-forge's names, so that this proves that an environment is complete, not
that conda-forge's own solver can make it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from project import ROOT

SHARED = ROOT.parent / "shared/hpc/conda"
HERE = Path(__file__).parent
# Whoever has a CPython 3.12 elsewhere says where.
PREFIX = "CPYTHON_PREFIX"
_RULE = re.compile(r"^rule (\w+):(.*?)(?=^rule |\Z)", re.M | re.S)

# rule -> the module that it runs
MODULES = {
    name: re.search(r'code=code\("([\w.]+)"\)', body)[1]
    for path in sorted((ROOT / "workflow/rules").glob("*.smk"))
    for name, body in _RULE.findall(path.read_text())
}
WITH_TORCH = [name for name in MODULES if "pytorch" in (ROOT / "envs" / f"{name}.yaml").read_text()]
WITHOUT_TORCH = [name for name in MODULES if name not in WITH_TORCH]


def cpython() -> Path | None:
    """Return the prefix of a CPython 3.12, the environments' own; none where there is none."""
    named = os.environ.get(PREFIX)
    candidates = [f"{named}/bin/python3"] if named else [sys.executable, "python3.12", *_known_to_pyenv()]
    for candidate in candidates:
        try:
            words = subprocess.run(
                [candidate, "-c", "import sys; print(sys.version_info[:2] == (3, 12), sys.base_prefix)"],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.split()
        except (OSError, subprocess.CalledProcessError):
            continue
        # A system's own Python shares its prefix with everything else.
        if words[0] == "True" and words[1] != "/usr":
            return Path(words[1])
    return None


def _known_to_pyenv() -> list[str]:
    if not shutil.which("pyenv"):
        return []
    said = subprocess.run(["pyenv", "prefix", "3.12"], capture_output=True, text=True)
    return [f"{said.stdout.strip()}/bin/python3"] if said.returncode == 0 else []


class Bench:
    """A folder with a channel, a stand-in for conda and the environments that Snakemake makes."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder = folder
        self.cpython = python
        self.python = folder / "tools/bin/python"
        self.environments = folder / "environments"
        _run(python / "bin/python3", "-m", "venv", folder / "tools")
        _run(
            self.python,
            *("-m", "pip", "install", "--quiet", "packaging", "pyyaml", "py-rattler<0.27", "backports.zstd"),
        )
        (folder / "channels").mkdir()
        _run(self.python, SHARED / "conda_standin.py", "install", folder / "standin", folder / "channels")

    def stock(self, rules: list[str]) -> None:
        """Put what the rules' environments list into the channel: once, though many list the same."""
        listed = {
            dependency
            for rule in rules
            for dependency in yaml.safe_load((ROOT / "envs" / f"{rule}.yaml").read_text())["dependencies"]
        }
        union = self.folder / "union.yaml"
        union.write_text(yaml.safe_dump({"dependencies": sorted(listed)}))
        channel = self.folder / "channels/conda-forge"
        _run(
            *(self.python, SHARED / "build_channel.py", "--out", channel, "--python", self.cpython),
            *("--wheels", self.folder / "wheels", union),
        )

    def alone(self, package: str) -> Path:
        """Return the Python of an environment with one package (and what it needs), without conda."""
        folder = self.folder / "alone"
        _run(self.cpython / "bin/python3", "-m", "venv", folder)
        _run(folder / "bin/python", "-m", "pip", "install", "--quiet", package)
        return folder / "bin/python"

    def snakemake(
        self, project: Path, *arguments: str, python: Path = Path(sys.executable)
    ) -> subprocess.CompletedProcess[str]:
        """Run Snakemake with conda in a copy of the project; the caller looks at how it ended."""
        package = project / "workflow"
        shutil.copy(HERE / "noted_imports.py", package / "sitecustomize.py")
        environment = {**os.environ, "MPLBACKEND": "Agg"}
        # Nothing may lead a job to the host's packages but what leads any user's job there.
        environment.pop("PYTHONPATH", None)
        environment["PATH"] = f"{self.folder / 'standin/bin'}:{python.parent}:{os.environ['PATH']}"
        return subprocess.run(
            [
                *(str(python), "-m", "snakemake", "--cores", "2", "--use-conda"),
                *("--conda-prefix", self.environments, *arguments),
            ],
            cwd=project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


def _run(*command: object) -> None:
    done = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-5_000:]


def every_import(bench: Bench, project: Path, rules: list[str]) -> str:
    """Import in each rule's environment all that its code imports; return what Snakemake said."""
    for name in ("every_import.py", "every_import.smk"):
        shutil.copy(HERE / name, project / name)
    targets = [f"imported/{rule}/{MODULES[rule]}" for rule in rules]
    return bench.snakemake(
        project, "--snakefile", "every_import.smk", "--keep-going", "--show-failed-logs", *targets
    ).stdout


def notes(project: Path, script: str) -> list[dict]:
    """Return what processes of one script noted when they ended."""
    found = [json.loads(path.read_text()) for path in sorted((project / "noted").glob("*.json"))]
    return [note for note in found if Path(note["argv"][0]).name == script]


def strangers(note: dict, project: Path) -> list[str]:
    """Return the modules that came neither from the environment nor from the project's package."""
    homes = (Path(note["prefix"]), project / "workflow", project / "every_import.py")
    return sorted(
        f"{name}: {place}"
        for name, place in note["modules"].items()
        if not any(Path(place).is_relative_to(home) for home in homes)
    )


def assert_at_home(note: dict, rules: list[str], project: Path) -> None:
    """Fail unless a process ran in the environment of one of the rules and imported from there alone."""
    # Beside each environment Snakemake keeps the file that it made it of.
    made_of = Path(f"{note['prefix']}.yaml").read_text()
    assert made_of in {(project / "envs" / f"{rule}.yaml").read_text() for rule in rules}
    assert any("site-packages" in place for place in note["modules"].values()), "nothing was imported at all"
    assert strangers(note, project) == []


def assert_imported(rule: str, project: Path, said: str) -> None:
    """Fail unless all import statements of a rule's code ran in its environment, and found everything there."""
    assert (project / f"imported/{rule}/{MODULES[rule]}").exists(), said[-10_000:]
    (note,) = [note for note in notes(project, "every_import.py") if note["argv"][1] == rule]
    assert_at_home(note, [rule], project)


def bench_or_skip(folder: Path) -> Bench:
    """Return a bench in a folder; skip, and say why, where its parts are missing."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared/hpc/conda beside the checkout: environments are not checked")
    python = cpython()
    if python is None:
        pytest.skip(f"no CPython 3.12 was found ({PREFIX} may name one): environments are not checked")
    return Bench(folder, python)
