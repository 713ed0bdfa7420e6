"""Tensors of a file fitted to a network: all of the network's by name and shape, or none.

Feature extractors are published as they were trained: behind prefixes (``module.``,
``teacher.backbone.``), beside a projection head that only their training needed, with position
embeddings of another image size. These wrappings are taken off. Whatever else differs is an error, so
that no network ever starts from random values that were meant to be trained ones.
"""

from __future__ import annotations

import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from marrowflow.errors import UserError

log = logging.getLogger(__name__)

State = Mapping[str, torch.Tensor]

# Words before the names of a network's own tensors: of programs that train in parallel, compile, or distil; and of our
# networks that stand on a pretrained one.
_PREFIXES = ("module", "_orig_mod", "model", "backbone", "encoder", "teacher", "student", "base")
# What only a training needed: projection heads (DINO, iBOT, contrastive learning), Inception's auxiliary answer, the
# stand-in for patches that are hidden from the network.
_ASIDE = ("head", "dino_head", "ibot_head", "projection_head", "projector", "AuxLogits", "mask_token")
# The only tensors whose size may be changed: they belong to places in the image, and these can be interpolated.
_POSITIONS = re.compile(r"pos_embed|rel_pos|relative_position")


@dataclass(frozen=True)
class _Attempt:
    """A file's tensors under one prefix, set against the network's.

    Attributes
    ----------
    given
        Those to be loaded.
    aside
        Names of those left aside.
    problems
        What does not match, in words; empty for a fit.
    """

    given: State
    aside: Sequence[str]
    problems: Sequence[str]


def load_all_but_head(module: nn.Module, state: State, head: Sequence[str], source: str) -> None:
    """Load a file's tensors into a network, all but the last layer's.

    Parameters
    ----------
    module
        The network; its input size is already the wanted one, so that position embeddings are resampled once.
    state
        The file's tensors by name.
    head
        Names of the network's parameters that keep their values, whatever the file holds.
    source
        Of the tensors, for messages.

    Raises
    ------
    UserError
        A tensor holds NaN or infinity; one that the network needs is missing or has another shape, or one is left over that is no
        projection head; says which.
    """
    best: _Attempt | None = None
    for attempt in _attempts(module, state, head):
        if best is None or len(attempt.problems) < len(best.problems):
            best = attempt
        if not attempt.problems:
            break
    assert best is not None  # the first attempt takes the names as they are
    if best.problems:
        shown = "\n".join(f"  - {p}" for p in best.problems[:6])
        raise UserError(
            f"weights ({source}) are not of this network: {len(best.problems)} tensors of "
            f"{len(_wanted(module, head))} do not match:\n{shown}\n"
            "name the network that they were trained with, or other weights"
        )
    odd = [name for name, t in best.given.items() if t.is_floating_point() and not bool(t.isfinite().all())]
    if odd:
        raise UserError(
            f"weights ({source}) hold values that are no finite numbers, in {len(odd)} tensors (first {odd[0]}); take other weights"
        )
    module.load_state_dict(best.given, strict=False)
    kinds = Counter(_kind(name) for name in best.aside)
    aside = ", ".join(f"{n} of {kind}" for kind, n in sorted(kinds.items()))
    log.info(
        "weights (%s): %d tensors loaded%s",
        source,
        len(best.given),
        f", left aside: {aside}" if aside else "",
    )


def _attempts(module: nn.Module, state: State, head: Sequence[str]) -> Iterator[_Attempt]:
    """Yield the ways of reading a file: under each prefix as it is, then by the architecture's own conversion."""
    for prefix in _prefixes(state):
        inside = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
        outside = [name for name in state if not name.startswith(prefix)]
        yield _set_against(module, inside, outside, head)
        converted = _converted(module, inside)
        if converted is not None:
            yield _set_against(module, converted, outside, head)


def _prefixes(state: State) -> list[str]:
    """Return the prefixes in a file's names, none first."""
    found = {""}
    for name in state:
        prefix = ""
        for word in name.split("."):
            if word not in _PREFIXES:
                break
            prefix += f"{word}."
            found.add(prefix)
    return sorted(found)


def _set_against(module: nn.Module, inside: State, outside: Sequence[str], head: Sequence[str]) -> _Attempt:
    """Set the tensors under a prefix against the network's; those outside it must all be dispensable."""
    wanted = _wanted(module, head)
    given = {name: t for name, t in inside.items() if name in wanted}
    # PyTorch before 0.4.1 kept no such counter, and no network here reads it.
    given |= {n: t for n, t in wanted.items() if n.endswith(".num_batches_tracked") and n not in given}
    rest = [name for name in [*inside, *outside] if name not in wanted]
    answers = {*head, *_answer_layers(module)}
    aside = [name for name in rest if _is_dispensable(name, answers)]
    problems = [f"missing: {name}" for name in wanted if name not in given]
    problems += [f"unexpected: {name}" for name in rest if name not in aside]
    problems += [
        f"{name} is {list(t.shape)}, the network's is {list(wanted[name].shape)}"
        for name, t in given.items()
        if t.shape != wanted[name].shape
    ]
    return _Attempt(given, aside, problems)


def _wanted(module: nn.Module, head: Sequence[str]) -> dict[str, torch.Tensor]:
    return {name: t for name, t in module.state_dict().items() if name not in head}


def _answer_layers(module: nn.Module) -> tuple[str, ...]:
    """Return what timm calls a network's last layer, which the network at hand may have been built without."""
    names = getattr(module, "pretrained_cfg", {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _is_dispensable(name: str, answers: set[str]) -> bool:
    """Tell whether a file's tensor belongs to a head, or to the student of a teacher that is taken."""
    words = name.split(".")
    if "student" in words[:2]:
        return True
    while len(words) > 1 and words[0] in _PREFIXES:
        words.pop(0)
    bare = ".".join(words)
    return words[0] in _ASIDE or any(bare == a or bare.startswith(f"{a}.") for a in answers)


def _kind(name: str) -> str:
    """Return a name without its prefixes, up to the first dot, for a count of what was left aside."""
    words = name.split(".")
    if "student" in words[:2]:
        return "student"
    return next((word for word in words if word not in _PREFIXES), name)


def _converted(module: nn.Module, state: State) -> dict[str, torch.Tensor] | None:
    """Return a file's tensors by timm's own conversion for the architecture; None where it has none or it fails.

    Only position embeddings may come out in another size: timm would resample the first layer's kernels, too.
    """
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return None
    try:
        converted = convert(dict(state), module)
    except Exception:  # written for files of this architecture, it fails on others in any way there is
        return None
    return {
        name: t
        if _POSITIONS.search(name) or name not in state or t.numel() == state[name].numel()
        else state[name]
        for name, t in converted.items()
    }
