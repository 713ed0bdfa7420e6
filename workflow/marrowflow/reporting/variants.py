"""What tells models of one network and mode apart, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from marrowflow.config import Model


def variants_of(models: Mapping[str, Model]) -> dict[str, str]:
    """Return of each model its profile and heads where they are not the usual ones, and the settings that its like do not share.

    Its like are the models of the same network in the same mode. The seed is no variant: see `seeds_of`.
    """
    return {name: "; ".join([*_answers(model), *_settings(name, models)]) for name, model in models.items()}


def seeds_of(models: Mapping[str, Model]) -> dict[str, str]:
    """Return the seed of each model where its like have others, else nothing."""
    return {
        name: str(model.training.seed)
        if len({like.training.seed for like in _like(name, models).values()}) > 1
        else ""
        for name, model in models.items()
    }


def _answers(model: Model) -> list[str]:
    heads = ", ".join(f"{name} {weight:g}" for name, weight in sorted(model.heads.items()))
    return [
        *([f"profile {model.profile}"] if model.profile != "corrected" else []),
        *(["one yes/no network a class"] if model.head == "one_vs_rest" else []),
        *([f"heads {heads}"] if heads else []),
    ]


def _settings(name: str, models: Mapping[str, Model]) -> list[str]:
    like = [_flat(model) for model in _like(name, models).values()]
    own = _flat(models[name])
    return [
        f"{key} {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in own.items()
        if any(other[key] != value for other in like)
    ]


def _like(name: str, models: Mapping[str, Model]) -> dict[str, Model]:
    own = models[name]
    return {n: m for n, m in models.items() if (m.network, m.mode) == (own.network, own.mode)}


def _flat(model: Model) -> dict[str, Any]:
    training = model.training.model_dump(mode="json", exclude={"seed"})
    return {"weights": model.weights, "input_size": model.input_size, **training}
