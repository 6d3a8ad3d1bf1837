"""Objectives by the names and fields of the config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .gap import get_gap_reward
from .log_prob_drop import get_log_prob_drop_reward
from .mirrored_interval import get_mirrored_interval_reward
from .objective import Objective
from .relation import get_crpo_reward, get_relation_reward
from .temporal import get_temporal_reward


class Fields(Protocol):
    """The fields of [`TGRPOConfig`] that objectives are made from."""

    temporal_alpha: float
    temporal_mu: float
    temporal_threshold: float
    objective_weight: float | None
    objective_column: str | None
    objective_router: str
    objective_explore: float
    objective_margin: float
    objective_reference: str


_ROUTER = {"objective_column": "column", "objective_router": "router"}
_SELF = {"objective_explore": "explore", "objective_margin": "margin"}
_RIGHT = {"temporal_threshold": "threshold"}
_WEIGHT = {"objective_weight": "weight"}

# name: what makes it, and which fields of the config are which of its parameters
OBJECTIVES: dict[str, tuple[Callable[..., Any], dict[str, str]]] = {
    "tgrpo": (get_temporal_reward, {"temporal_alpha": "alpha", "temporal_mu": "mu", **_RIGHT}),
    "relation": (get_relation_reward, {**_WEIGHT, **_RIGHT, **_ROUTER, **_SELF}),
    "crpo": (get_crpo_reward, {**_WEIGHT, **_RIGHT, **_ROUTER, **_SELF}),
    "log_prob_drop": (get_log_prob_drop_reward, {**_WEIGHT, **_RIGHT, "objective_margin": "margin"}),
    "mirrored_interval": (
        get_mirrored_interval_reward,
        {**_WEIGHT, **_ROUTER, "objective_reference": "reference"},
    ),
    "gap": (get_gap_reward, {**_WEIGHT, **_RIGHT}),
}
_FIELDS = tuple(dict.fromkeys(field for _, taken in OBJECTIVES.values() for field in taken))


def objective_of(name: str, fields: Fields) -> Objective:
    """
    The objective of that name, with its parameters from the config.

    Raises:
        `ValueError`: no such name, a field that it does not take and that is other than its default, or a parameter out of range.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"objective ({name!r}) must be one of {', '.join(map(repr, OBJECTIVES))}.")
    make, takes = OBJECTIVES[name]
    for field in _FIELDS:
        if field not in takes and getattr(fields, field) != getattr(type(fields), field):
            takers = [each for each, (_, known) in OBJECTIVES.items() if field in known]
            raise ValueError(f"{field} has no effect on objective={name!r}: it is a parameter of {', '.join(takers)}.")
    values = {parameter: getattr(fields, field) for field, parameter in takes.items()}
    if values.get("weight", 0) is None:
        del values["weight"]  # its own default
    try:
        objective: Objective = make(**values)
    except ValueError as error:  # which names the parameter
        said = str(error)
        for field, parameter in takes.items():
            if said.startswith(f"{parameter} ("):
                raise ValueError(said.replace(parameter, field, 1)) from None
        raise
    return objective
