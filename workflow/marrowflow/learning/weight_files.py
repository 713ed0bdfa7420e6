"""Files of weights: tensors by name, read without running code, written with equal bytes for equal contents."""

from __future__ import annotations

import argparse
import json
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from marrowflow.errors import UserError
from marrowflow.files import written_whole

log = logging.getLogger(__name__)

WRAPPINGS = ("state_dict", "model", "teacher", "student")
"""Where training programs put the tensors beside their own state; a teacher is the mean of its student's past, and better."""

# The one key of a file's metadata: safetensors writes several in an order that changes from run to run.
_METADATA_KEY = "marrowflow"


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of tensors by name, without running any code that it may hold.

    Parameters
    ----------
    path
        ``.safetensors``; or ``.pth``/``.pt`` with a plain mapping of names to tensors, or with one below
        a key of `WRAPPINGS` (the first of these that is there) as training programs save it.

    Returns
    -------
    dict
        Tensors on the CPU; other floating-point ones become float32.

    Raises
    ------
    UserError
        No such file, another suffix, a damaged file, or no such mapping in it.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file of weights at {path}; set the model's weights: to a file that exists")
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise UserError(f"{path}: weights are .safetensors or .pth files, not {path.suffix!r}")
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            # Training programs save their command line beside the weights: attributes and no code.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} cannot be read as a file of weights: {error}") from error
    return {name: t.float() if t.is_floating_point() else t for name, t in _tensors(content, path).items()}


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what `write_weights` noted in a file; empty where it noted nothing."""
    with safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))


def write_weights(path: Path, state: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and a note as safetensors, whole or not at all; equal contents give equal bytes."""
    note = json.dumps(metadata, sort_keys=True, ensure_ascii=False)
    # A copy each: safetensors takes neither strided tensors nor two names for one memory.
    tensors = {
        name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in state.items()
    }
    with written_whole(path) as beside:
        # Not save_file, whose files nobody but their owner may read.
        beside.write_bytes(save(tensors, metadata={_METADATA_KEY: note}))


def _tensors(content: object, path: Path) -> Mapping[str, torch.Tensor]:
    """Return the mapping of tensors that a file's content is or wraps."""
    if _is_tensors(content):
        return content  # type: ignore[return-value]
    if isinstance(content, Mapping):
        for key in WRAPPINGS:
            if _is_tensors(content.get(key)):
                log.info("%s: the tensors below its key %r are taken", path.name, key)
                return content[key]
    raise UserError(
        f"{path} holds no tensors by name, neither by themselves nor below {', '.join(WRAPPINGS)}; "
        "save the network's state_dict() alone, best as .safetensors"
    )


def _is_tensors(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(v, torch.Tensor) for v in value.values())
    )
