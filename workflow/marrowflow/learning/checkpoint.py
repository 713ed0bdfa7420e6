"""Where an interrupted training goes on from: its state, under the fingerprint of all that shaped it.

The state lies outside the declared outputs. A state of another fingerprint (options, code, split,
pixels or weights have changed) is never read; success deletes all of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from marrowflow.errors import UserError
from marrowflow.files import written_whole

log = logging.getLogger(__name__)


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Return 64 hexadecimal digits that stand for a job's options, code and inputs (JSON values)."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Checkpoint:
    """The kept state of one job.

    Parameters
    ----------
    folder
        The job's own folder; no other job may use it.
    key
        Its `fingerprint`.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = Path(folder)
        self._own = self._folder / key

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Keep a mapping of tensors, numbers and lists under a name; an older one is replaced whole.

        Raises
        ------
        UserError
            The file cannot be written.
        """
        path = self._own / f"{name}.pt"
        try:
            with written_whole(path) as beside:
                torch.save(dict(state), beside)
        except (OSError, RuntimeError) as error:
            # RuntimeError is what torch's writer raises when the disk is full.
            raise UserError(
                f"{path}: the state for resuming cannot be written ({_first_line(error)}); make room on its disk, "
                "then start the run again: it goes on from the state before"
            ) from error

    def load(self, name: str, device: torch.device) -> dict[str, Any] | None:
        """Return what was kept under a name; None where nothing was, or nothing that can be read whole.

        To begin anew costs time and changes no result, so a damaged file is a warning and no error.
        """
        path = self._own / f"{name}.pt"
        if not path.is_file():
            return None
        try:
            state = torch.load(path, map_location=device, weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            log.warning(
                "%s is damaged (%s): the training begins anew instead of going on from it",
                path,
                _first_line(error),
            )
            return None
        log.info("going on from the state of an interrupted run: %s", path)
        return state

    def discard(self) -> None:
        """Delete this job's state, and any that an earlier version of the job left behind."""
        for child in self._folder.glob("*"):
            if child.is_dir() and re.fullmatch("[0-9a-f]{64}", child.name):
                shutil.rmtree(child)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
