"""A training that is killed again and again ends with the files of one that never was."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.learning.small_study import make_study, with_model

import marrowflow

OUTPUTS = ["model.safetensors", "history.csv", "card.json"]
EPOCHS = 14
NETWORKS = 3  # one-vs-rest: a network a class, so that kills fall into different ones
OPTIONS = with_model(
    {"head": "one_vs_rest"}, epochs=EPOCHS, dropout=0.2, batches="balanced", patience=None, schedule="cosine"
)


class Job:
    """The command of one training, with a folder of its own for its state and outputs."""

    def __init__(self, study: dict[str, Path], folder: Path) -> None:
        folder.mkdir()
        self.state, self.out, self.log = folder / "state", folder / "out", folder / "log"
        self._command = [
            *(sys.executable, "-m", "marrowflow", "learning.train"),
            *("--options", OPTIONS, "--fold", "0"),
            *("--folds", str(study["folds"]), "--stores", str(study["store"])),
            *("--state", str(self.state), "--features", str(folder / "features"), "--out", str(self.out)),
        ]

    def start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(Path(marrowflow.__file__).parents[1])}
        with self.log.open("wb") as log:
            return subprocess.Popen(
                self._command, env=environment, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
            )

    def finish(self) -> dict[str, bytes]:
        """Run to the end; return the contents of the outputs that must not differ from run to run."""
        assert self.start().wait(timeout=120) == 0, self.log.read_text()
        assert not self.state.exists()
        return {name: (self.out / name).read_bytes() for name in OUTPUTS}

    def kill(self, epochs: int, pause: float, writing: bool = False) -> None:
        """Start, and kill so many epochs and seconds later; ``writing``: at the next state being written."""
        process = self.start()
        self._wait(process, lambda: self.log.read_text().count("accuracy") >= epochs)
        time.sleep(pause)
        if writing:
            self._wait(process, lambda: any(self.state.glob("*/.training*.part.pt")))
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"it ended before it was killed: {self.log.read_text()}"
        assert not self.out.exists()

    def _wait(self, process: subprocess.Popen[bytes], until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not until() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def unbroken(study: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return Job(study, tmp_path_factory.mktemp("unbroken") / "job").finish()


@pytest.fixture(scope="module")
def killed(study: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A training that was killed four times: while it started, in an epoch, while it wrote its state, and in an epoch."""
    job = Job(study, tmp_path_factory.mktemp("killed") / "job")
    moments = random.Random(5)
    job.kill(0, moments.uniform(0, 1))
    job.kill(moments.randint(3, 8), moments.uniform(0, 0.1))
    job.kill(moments.randint(3, 8), moments.uniform(0, 0.1), writing=True)
    job.kill(moments.randint(3, 8), moments.uniform(0, 0.1))
    assert list(job.state.glob("*/training_*.pt")), "no kill fell behind the first epoch"
    return job


def test_it_ends_with_the_bytes_of_an_unbroken_run(
    killed: Job, unbroken: dict[str, bytes], study: dict[str, Path], tmp_path: Path
) -> None:
    job = Job(study, tmp_path / "job")
    shutil.copytree(killed.state, job.state)
    # What a kill in the middle of writing leaves, whether or not one of those above came in time.
    kept = next(job.state.glob("*/training_*.pt"))
    kept.with_name(".training_0.1.part.pt").write_bytes(kept.read_bytes()[:1000])
    assert job.finish() == unbroken
    assert "going on from the state" in job.log.read_text()
    cost = json.loads((job.out / "cost.json").read_text())
    assert cost["resumed"] >= 1
    assert cost["epochs"] == EPOCHS * NETWORKS


def test_a_torn_state_costs_time_and_nothing_else(
    killed: Job, unbroken: dict[str, bytes], study: dict[str, Path], tmp_path: Path
) -> None:
    job = Job(study, tmp_path / "job")
    shutil.copytree(killed.state, job.state)
    newest = max(job.state.glob("*/training_*.pt"))
    newest.write_bytes(newest.read_bytes()[:-5000])
    assert job.finish() == unbroken
    said = job.log.read_text()
    assert "damaged" in said
    assert "Traceback" not in said
