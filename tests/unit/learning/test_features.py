"""Features of frozen networks: equal to the whole network's, computed once, and never those of something else."""

import errno
import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from small_study import NETWORK, colour_images, write_store
from torch import nn

import marrowflow
from marrowflow.config import Augmentation
from marrowflow.errors import UserError
from marrowflow.files import write_json
from marrowflow.images.augment import draw_plan
from marrowflow.images.store import PackedPixels
from marrowflow.learning import feature_cache
from marrowflow.learning.batches import ImageSamples, in_order
from marrowflow.learning.checkpoint import Checkpoint
from marrowflow.learning.feature_cache import FeatureCache, sample_features
from marrowflow.learning.features import Extractor, FeatureSamples
from marrowflow.learning.preparation import Preparation
from marrowflow.provenance import PACKAGE, code_digest

CPU = torch.device("cpu")
PREPARE = Preparation(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
N = 40


class Counting(nn.Module):
    """A network that counts the images sent through it, the two of the first check left out."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.seen = module, 0
        self.forward_head, self.get_classifier = module.forward_head, module.get_classifier

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images) if len(images) != 2 else 0
        return self.module.forward_features(images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.module(images)


def network(seed: int = 0, outputs: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(NETWORK, num_classes=outputs).eval()


def extractor(module: nn.Module | None = None, **changes: object) -> Extractor:
    values = {"module": module or network(), "network": NETWORK, "profile": "corrected", "prepare": PREPARE}
    return Extractor(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def pixels(tmp_path: Path) -> PackedPixels:
    """Return two stores of 40 images in all, the second's rows not in the order of its cases' names."""
    images, _ = colour_images(N, 32)
    names = [f"a/{i:02}" for i in range(25)] + [f"b/{i:02}" for i in range(14, -1, -1)]
    folders = [
        write_store(tmp_path / "a", names[:25], images[:25]),
        write_store(tmp_path / "b", names[25:], images[25:]),
    ]
    return PackedPixels(folders)


def cases(pixels: PackedPixels) -> list[str]:
    return sorted(case for _, held in pixels.contents() for case in held)


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def plain_logits(module: nn.Module, samples: ImageSamples) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([module(x) for x, _ in samples.batches(in_order(len(samples), 7))])


def test_the_last_layer_on_kept_features_answers_as_the_whole_network(
    pixels: PackedPixels, tmp_path: Path
) -> None:
    module = network()
    nn.init.normal_(module.get_classifier().weight)
    wanted = [*cases(pixels)[::-1], "b/03", "a/00"]
    features = FeatureCache(tmp_path / "features").of(extractor(module), pixels, wanted, CPU)
    samples = ImageSamples(pixels, wanted, np.zeros(len(wanted), np.int64), PREPARE, CPU)
    with torch.no_grad():
        ours = module.get_classifier()(features)
    torch.testing.assert_close(ours, plain_logits(module, samples), rtol=1e-5, atol=1e-5)
    assert len(entries(tmp_path / "features")) == 2  # one a store
    about = json.loads((entries(tmp_path / "features")[0] / "about.json").read_text())
    assert about["network"] == NETWORK
    assert entries(tmp_path / "features")[0].name == f"{NETWORK}-{about['key'][:12]}"


def test_a_network_is_asked_once_whatever_its_last_layer(pixels: PackedPixels, tmp_path: Path) -> None:
    module = Counting(network())
    cache = FeatureCache(tmp_path / "features")
    first = cache.of(extractor(module), pixels, cases(pixels), CPU)
    assert module.seen == N
    nn.init.normal_(module.get_classifier().weight)
    again = FeatureCache(tmp_path / "features").of(extractor(module), pixels, ["b/02"], CPU)
    assert module.seen == N
    assert torch.equal(again[0], first[cases(pixels).index("b/02")])


def test_only_the_stores_asked_for_are_gone_through(pixels: PackedPixels, tmp_path: Path) -> None:
    module = Counting(network())
    FeatureCache(tmp_path / "features").of(extractor(module), pixels, ["b/02", "b/00"], CPU)
    assert module.seen == 15


@pytest.mark.parametrize(
    "change",
    [
        {"module": network(seed=1)},
        {"network": "other"},
        {"profile": "as_published"},
        {"prepare": Preparation(24, PREPARE.mean, PREPARE.std)},
        {"prepare": Preparation(32, (0.4, 0.5, 0.5), PREPARE.std)},
        {"bfloat16": True},
    ],
    ids=["weights", "network", "profile", "size", "mean", "precision"],
)
def test_other_networks_and_settings_have_entries_of_their_own(
    pixels: PackedPixels, tmp_path: Path, change: dict[str, object]
) -> None:
    cache = FeatureCache(tmp_path / "features")
    cache.of(extractor(), pixels, ["a/00"], CPU)
    cache.of(extractor(**change), pixels, ["a/00"], CPU)
    assert len(entries(tmp_path / "features")) == 2


@pytest.mark.parametrize("module", ["squeezenet", "marrow_networks", "backbones", "preparation"])
def test_a_changed_architecture_has_an_entry_of_its_own(
    pixels: PackedPixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    cache = FeatureCache(tmp_path / "features")
    cache.of(extractor(), pixels, ["a/00"], CPU)
    package = tmp_path / "marrowflow"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(feature_cache, "code_digest", lambda module: code_digest(module, package))
    cache.of(extractor(), pixels, ["a/00"], CPU)
    assert len(entries(tmp_path / "features")) == 1  # a copy of the code is the same code
    with (package / "learning" / f"{module}.py").open("a") as file:
        file.write("CHANGED = True\n")
    cache.of(extractor(), pixels, ["a/00"], CPU)
    assert len(entries(tmp_path / "features")) == 2


def test_another_generation_of_cpus_has_an_entry_of_its_own(
    pixels: PackedPixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path / "features")
    cache.of(extractor(), pixels, ["a/00"], CPU)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    cache.of(extractor(), pixels, ["a/00"], CPU)
    assert len(entries(tmp_path / "features")) == 2


def test_other_pixels_of_the_same_case_are_computed(tmp_path: Path) -> None:
    images, _ = colour_images(3, 32)
    cache, names = FeatureCache(tmp_path / "features"), ["a/0", "a/1", "a/2"]
    first = cache.of(extractor(), PackedPixels([write_store(tmp_path / "a", names, images)]), ["a/0"], CPU)
    changed = PackedPixels([write_store(tmp_path / "a", names, 255 - images)])
    second = cache.of(extractor(), changed, ["a/0"], CPU)
    assert not torch.allclose(first, second)
    assert len(entries(tmp_path / "features")) == 2


@pytest.mark.parametrize("file", ["features.npy", "about.json"])
def test_a_damaged_entry_is_computed_anew(pixels: PackedPixels, tmp_path: Path, file: str) -> None:
    module, cache = Counting(network()), FeatureCache(tmp_path / "features")
    first = cache.of(extractor(module), pixels, ["a/00"], CPU)
    (entry,) = entries(tmp_path / "features")
    whole = (entry / file).read_bytes()
    (entry / file).write_bytes(whole[: len(whole) // 2])
    assert torch.equal(cache.of(extractor(module), pixels, ["a/00"], CPU), first)
    assert module.seen == 2 * 25
    assert (entry / file).read_bytes() == whole


@pytest.mark.parametrize("whole", [True, False])
def test_what_another_machine_has_put_there_stays_if_it_is_whole(
    pixels: PackedPixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """No lock holds between the machines: the other one is ready while this one computes."""
    cache = FeatureCache(tmp_path / "features")
    first = cache.of(extractor(), pixels, ["a/00"], CPU)
    (entry,) = entries(tmp_path / "features")
    theirs = entry.rename(tmp_path / "theirs")
    if not whole:
        (theirs / "features.npy").write_bytes((theirs / "features.npy").read_bytes()[:-1])
    number = (theirs / "features.npy").stat().st_ino

    def put_meanwhile(path: Path, about: object) -> None:
        write_json(path, about)
        theirs.rename(entry)

    monkeypatch.setattr(feature_cache, "write_json", put_meanwhile)
    assert torch.equal(cache.of(extractor(), pixels, ["a/00"], CPU), first)
    assert ((entry / "features.npy").stat().st_ino == number) is whole
    assert [path.name for path in (tmp_path / "features").iterdir() if path.suffix == ".part"] == []


def test_an_entry_of_another_key_is_not_taken(pixels: PackedPixels, tmp_path: Path) -> None:
    module, cache = Counting(network()), FeatureCache(tmp_path / "features")
    cache.of(extractor(module), pixels, ["a/00"], CPU)
    (about,) = (tmp_path / "features").glob("*/about.json")
    key = json.loads(about.read_text())["key"]
    about.write_text(about.read_text().replace(key, key[:12] + 52 * "0"))  # of the same name
    cache.of(extractor(module), pixels, ["a/00"], CPU)
    assert module.seen == 2 * 25


def test_bfloat16_rounds_to_three_digits(pixels: PackedPixels, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features")
    exact = cache.of(extractor(), pixels, cases(pixels), CPU)
    rounded = cache.of(extractor(bfloat16=True), pixels, cases(pixels), CPU)
    assert rounded.dtype == torch.float32
    relative = float((rounded - exact).norm() / exact.norm())
    assert 1e-4 < relative < 0.03  # 8 bits a number


JOB = """
import sys, time
import torch
sys.path.insert(0, {tests!r})
torch.set_num_threads({threads})  # part of the key, and other tests may have set it
import test_features as t

class Slow(t.Counting):
    def forward_features(self, images):
        if len(images) != 2:
            print("computing", flush=True)
            time.sleep({pause})
        return super().forward_features(images)

module = Slow(t.network())
pixels = t.PackedPixels([{folder!r}])
features = t.FeatureCache({cache!r}).of(t.extractor(module), pixels, ["a/00"], t.CPU)
print("seen", module.seen, flush=True)
"""


def start(tmp_path: Path, pause: float) -> subprocess.Popen[str]:
    code = JOB.format(
        tests=str(Path(__file__).parent),
        threads=torch.get_num_threads(),
        pause=pause,
        folder=str(tmp_path / "a"),
        cache=str(tmp_path / "features"),
    )
    package = str(Path(marrowflow.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": package},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_of_two_jobs_at_once_one_computes_and_the_other_waits(
    pixels: PackedPixels, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = start(tmp_path, 2)
    assert job.stdout is not None
    assert job.stdout.readline() == "computing\n"
    module, cache = Counting(network()), FeatureCache(tmp_path / "features")
    with caplog.at_level(logging.INFO):
        cache.of(extractor(module), pixels, ["a/00"], CPU)
    assert "waiting" in caplog.text
    assert module.seen == 0
    assert cache.seconds == 0  # the other job's
    assert job.communicate(timeout=60)[0].endswith("seen 25\n")


def test_a_killed_job_leaves_no_lock_and_nothing_that_looks_whole(
    pixels: PackedPixels, tmp_path: Path
) -> None:
    job = start(tmp_path, 60)
    assert job.stdout is not None
    assert job.stdout.readline() == "computing\n"
    job.send_signal(signal.SIGKILL)
    job.wait()
    job.stdout.close()
    module = Counting(network())
    started = time.monotonic()
    FeatureCache(tmp_path / "features").of(extractor(module), pixels, ["a/00"], CPU)
    assert time.monotonic() - started < 30
    assert module.seen == 25
    assert [path.suffix for path in (tmp_path / "features").iterdir() if path.suffix == ".part"] == []


def test_parts_of_an_entry_are_their_writers_own(
    pixels: PackedPixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no lock holds, two jobs on one machine compute the same entry; what dead ones left goes."""
    cache = FeatureCache(tmp_path / "features")
    cache.of(extractor(), pixels, ["a/00"], CPU)
    (entry,) = entries(tmp_path / "features")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    monkeypatch.setattr(platform, "node", lambda: "node-1")
    numbers = {"node-1": (dead.pid, os.getppid()), "node-2": (dead.pid,)}
    left = [
        entry.with_name(f".{entry.name}.{host}.{number}.part") for host in numbers for number in numbers[host]
    ]
    for folder in left:
        folder.mkdir()
        (folder / "features.npy").write_bytes(b"half")
    shutil.rmtree(entry)
    cache.of(extractor(), pixels, ["a/00"], CPU)
    assert [folder for folder in left if folder.exists()] == left[1:]
    assert entries(tmp_path / "features") == [entry]


def test_half_an_entry_does_not_stay_on_a_full_disk(
    pixels: PackedPixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def filling(*_: object) -> Iterator[torch.Tensor]:
        yield torch.zeros(2, extractor().head.in_features)
        assert list((tmp_path / "features").glob(".*.part/features.npy"))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_cache, "computed_features", filling)
    with pytest.raises(UserError, match=r"cannot be written .*make room"):
        FeatureCache(tmp_path / "features").of(extractor(), pixels, ["a/00"], CPU)
    assert [path.suffix for path in (tmp_path / "features").iterdir()] == [".lock"]


def test_samples_of_a_plan_are_those_of_the_whole_network_and_kept(
    pixels: PackedPixels, tmp_path: Path
) -> None:
    parents = cases(pixels)[10:30]
    folds = pd.DataFrame({"case_id": parents, "label": "x", "fold": 0, "partition": "train"})
    plan = draw_plan(folds, 0, Augmentation(plan="eight", copies=1), ["x"])
    plan = plan[~plan["whiten"]].sample(frac=1, random_state=0)  # its index is not 0, 1, 2, …
    wanted = plan["case_id"].tolist()
    counting = Counting(network())
    nn.init.normal_(counting.get_classifier().weight)
    cache = FeatureCache(tmp_path / "features")
    checkpoint = Checkpoint(tmp_path / "state", "0" * 64)
    features = sample_features(cache, extractor(counting), pixels, wanted, plan, CPU, checkpoint)
    assert counting.seen == N + int((plan["transform"] != "original").sum())
    samples = ImageSamples(pixels, wanted, np.zeros(len(wanted), np.int64), PREPARE, CPU, plan)
    with torch.no_grad():
        ours = counting.get_classifier()(features)
    torch.testing.assert_close(ours, plain_logits(counting.module, samples), rtol=1e-5, atol=1e-5)

    counting.seen = 0
    again = sample_features(cache, extractor(counting), pixels, wanted, plan, CPU, checkpoint)
    assert counting.seen == 0  # the changed images' from the interrupted run, the others' from the cache
    assert torch.equal(again, features)
    assert torch.equal(
        sample_features(cache, extractor(counting), pixels, parents, None, CPU),
        cache.of(extractor(counting), pixels, parents, CPU),
    )


class Ticking(Counting):
    """A network that takes a second of a hand-made clock a batch."""

    def __init__(self, module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(module)
        self.now = 0.0
        clock = SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr(feature_cache, "time", clock)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        self.now += len(images) != 2  # the first check is of two
        return super().forward_features(images)


def test_time_is_that_of_computing_in_this_job(
    pixels: PackedPixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticking = extractor(Ticking(network(), monkeypatch))
    folds = pd.DataFrame({"case_id": cases(pixels), "label": "x", "fold": 0, "partition": "train"})
    plan = draw_plan(folds, 0, Augmentation(plan="eight", copies=1), ["x"])
    plan = plan[plan["transform"].isin(["original", "flip_h"])]
    wanted = plan["case_id"].tolist()
    cache, state = FeatureCache(tmp_path / "features"), Checkpoint(tmp_path / "state", "0" * 64)
    sample_features(cache, ticking, pixels, wanted, plan, CPU, state)
    # 25 and 15 images as they are, then 40 flipped ones, 32 at once.
    assert cache.seconds == 1 + 1 + 2
    warm = FeatureCache(tmp_path / "features")
    sample_features(warm, ticking, pixels, wanted, plan, CPU, state)
    assert warm.seconds == 0


def test_features_that_do_not_fit_are_an_error_with_remedies(pixels: PackedPixels, tmp_path: Path) -> None:
    class Full(Counting):
        def forward_features(self, images: torch.Tensor) -> torch.Tensor:
            if len(images) != 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward_features(images)

    with pytest.raises(UserError, match=rf"{NETWORK} in float32: .*32 images.*input_size"):
        FeatureCache(tmp_path / "features").of(extractor(Full(network())), pixels, ["a/00"], CPU)
    assert not entries(tmp_path / "features")


def test_feature_samples_are_drawn_by_number() -> None:
    samples = FeatureSamples(torch.arange(12.0).view(6, 2), torch.arange(6), list("abcdef"))
    drawn = list(samples.batches([np.array([4, 1]), np.array([0])]))
    assert drawn[0][0].tolist() == [[8, 9], [2, 3]]
    assert [targets.tolist() for _, targets in drawn] == [[4, 1], [0]]
    assert samples.case_ids(np.array([4, 1])) == ["e", "b"]


class Squashed(Counting):
    """A network that does more after its last layer: at a last layer of zeros nothing of it shows."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 2 * self.module(images)


class Doubled(Counting):
    """A network whose last layer is given something else than its features."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.get_classifier()(2 * self.forward_head(self.forward_features(images), pre_logits=True))


@pytest.mark.parametrize("kind", [Squashed, Doubled])
def test_a_network_that_does_more_is_refused_even_with_a_last_layer_of_zeros(
    pixels: PackedPixels, tmp_path: Path, kind: type[Counting]
) -> None:
    module = kind(network())
    for parameter in module.get_classifier().parameters():
        nn.init.zeros_(parameter)
    with pytest.raises(UserError, match="mode: finetune"):
        FeatureCache(tmp_path / "features").of(extractor(module), pixels, ["a/00"], CPU)
    assert not entries(tmp_path / "features")


def test_two_last_layers_are_refused(pixels: PackedPixels, tmp_path: Path) -> None:
    distilled = timm.create_model("deit_tiny_distilled_patch16_224", img_size=32).eval()
    with pytest.raises(UserError, match="has none"):
        FeatureCache(tmp_path).of(extractor(distilled), pixels, ["a/00"], CPU)
