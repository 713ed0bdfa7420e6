"""GPUs, counted without PyTorch: with a stand-in for the driver's command and for its files."""

import os

import pytest

from marrowflow.watch.devices import count_gpus, said_of_devices
from marrowflow.watch.plan import Plan, PlannedJob

LISTED = "GPU 0: NVIDIA A100 (UUID: GPU-1)\n  MIG 1g.5gb Device 0: (UUID: MIG-1)\nGPU 1: NVIDIA A100 (UUID: GPU-2)\n"


@pytest.fixture
def machine(tmp_path):
    """Make a machine: an environment and a folder of devices."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "dev").mkdir()

    def make(listed=None, status=0, devices=(), **variables):
        if listed is not None:
            command = tmp_path / "bin/nvidia-smi"
            command.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{listed}END\nexit {status}\n")
            command.chmod(0o755)
        for name in devices:
            (tmp_path / "dev" / name).touch()
        return {"PATH": str(tmp_path / "bin"), **variables}, tmp_path / "dev"

    return make


def test_a_machine_without_a_driver_has_none(machine):
    assert count_gpus(*machine()) == 0


def test_the_drivers_list_counts_whole_gpus(machine):
    assert count_gpus(*machine(LISTED)) == 2


@pytest.mark.parametrize("listed", [None, "NVIDIA-SMI has failed\n"])
def test_device_files_count_where_the_driver_does_not_answer(machine, listed):
    files = ("nvidia0", "nvidia1", "nvidia12", "nvidiactl", "nvidia-uvm", "nvidia-modeset")
    assert count_gpus(*machine(listed, 9, files)) == 3


@pytest.mark.parametrize(
    ("visible", "count"),
    [("", 0), ("-1", 0), ("1", 1), ("0,1", 2), ("0,-1,1", 1), ("0,1,2,3", 2), ("GPU-2", 1)],
)
def test_what_cuda_must_not_see_is_not_counted(machine, visible, count):
    assert count_gpus(*machine(LISTED, CUDA_VISIBLE_DEVICES=visible)) == count


def test_this_machine_can_be_asked():
    assert count_gpus(os.environ) >= 0


def jobs(*rules):
    return [
        PlannedJob(n, rule, gpus=rule in ("train_fold", "predict_external")) for n, rule in enumerate(rules)
    ]


@pytest.mark.parametrize(
    ("rules", "limit", "gpus", "words"),
    [
        (
            ["train_fold", "train_fold", "predict_external"],
            1,
            0,
            "no GPU on this machine: 2 networks train on its CPU",
        ),
        (["train_fold"], 1, 0, "no GPU on this machine: 1 network trains on its CPU"),
        (["predict_external"], 1, 0, "no GPU on this machine: 1 job with networks runs on its CPU"),
        (["report_study"], 1, 0, ""),
        (["train_fold"], 1, 1, ""),
        (
            ["train_fold"],
            1,
            4,
            "4 GPUs on this machine, 1 of them used at a time: --resources gpu=4 uses all",
        ),
        (["train_fold"], 4, 4, ""),
        (["train_fold"], None, 4, ""),
        (["report_study"], 1, 4, ""),
    ],
)
def test_what_is_said_of_them(rules, limit, gpus, words):
    assert said_of_devices(Plan(jobs(*rules), gpus=limit), gpus) == words
