"""A grid of models: every network in every mode, variant and seed, written in a few lines.

The grid is a shorthand. It is spelt out before anything is checked, so that each of its cells is a model like one that was
listed by hand: with its own name, its own job for every colour recipe and fold, and its own row in every table.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

# A network from scratch has no use for these, which the same network in another mode needs.
_OF_GIVEN_WEIGHTS = ("weights", "licence")


def cells(grid: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the grid's models by name, as they would be written under ``models:``.

    A cell is called ``<network>_<mode>``, then ``_<variant>`` where the grid has variants, then ``_seed<n>`` where it has
    several seeds. Its keys are those of the network, of the mode over them and of the variant over both; ``training:`` is
    merged key by key.

    Parameters
    ----------
    grid
        ``networks`` (name → keys of a model), ``modes`` (names, or name → keys of a model), and maybe ``variants``
        (name → keys of a model), ``seeds`` and ``colours``.

    Raises
    ------
    ValueError
        A part is not of this form.
    """
    networks = _named(grid, "networks")
    modes = _named(grid, "modes")
    variants = _named(grid, "variants") or {"": {}}
    seeds = grid.get("seeds") or [None]
    if not networks or not modes or not isinstance(seeds, list):
        raise ValueError(
            "grid: it needs networks: and modes:, one or more of each, and its seeds: are a list"
        )
    if isinstance(grid.get("modes"), list) and len(modes) < len(grid["modes"]):
        raise ValueError(f"grid.modes: a mode stands twice in {grid['modes']}")
    for part, entries in (("networks", networks), ("modes", modes), ("variants", variants)):
        for name, keys in entries.items():
            if "mode" in keys:
                raise ValueError(f"grid.{part}.{name}: mode: is what the grid's modes: are for; take it out")
            if not isinstance(keys.get("training") or {}, Mapping):
                raise ValueError(
                    f"grid.{part}.{name}.training: expected keys and values, found {keys['training']!r}"
                )
    if len(set(map(str, seeds))) < len(seeds):
        raise ValueError(f"grid.seeds: a seed stands twice in {seeds}")
    found: dict[str, dict[str, Any]] = {}
    for (network, own), (mode, of_mode), (variant, of_variant), seed in product(
        networks.items(), modes.items(), variants.items(), seeds
    ):
        name = "_".join(part for part in (network, mode, variant) if part)
        cell = _laid_over(_laid_over(_laid_over({"mode": mode}, own), of_mode), of_variant)
        if grid.get("colours") is not None:
            cell.setdefault("colours", grid["colours"])
        if cell["mode"] == "scratch":
            cell = {key: value for key, value in cell.items() if key not in _OF_GIVEN_WEIGHTS}
        if seed is not None:
            cell = _laid_over(cell, {"training": {"seed": seed}})
        name = f"{name}_seed{seed}" if len(seeds) > 1 else name
        if name in found:
            raise ValueError(f"grid: two cells would be called {name!r}; name networks and variants apart")
        found[name] = cell
    return found


def _named(grid: Mapping[str, Any], part: str) -> dict[str, dict[str, Any]]:
    """Return a part of the grid as name → keys of a model; a plain list gives names without keys."""
    given = grid.get(part) or {}
    if isinstance(given, list):
        given = {str(name): {} for name in given}
    if not isinstance(given, Mapping) or not all(
        isinstance(keys, Mapping) or keys is None for keys in given.values()
    ):
        raise ValueError(f"grid.{part}: expected names, each with the keys of a model below it")
    return {str(name): dict(keys or {}) for name, keys in given.items()}


def _laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``under`` with the keys of ``over``; the keys of ``training`` one by one."""
    merged = {**under, **over}
    if isinstance(under.get("training"), Mapping) and isinstance(over.get("training"), Mapping):
        merged["training"] = {**under["training"], **over["training"]}
    return merged
