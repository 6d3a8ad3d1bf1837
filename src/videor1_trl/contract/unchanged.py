"""Leaves a model as it was: its weights are never written without being put back, and all else is restored here."""

import contextlib
import logging
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import nn
from transformers import GenerationConfig, PreTrainedConfig
from transformers.utils import logging as transformers_logging


_OWN_LOGGERS = ("videor1_trl.sharing.prompts",)  # says what rows cannot share, which is one of the checks
_Kept = list[tuple[Any, dict[str, Any]]]  # objects, and what stood in them


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """
    Within the context a model may be patched, wrapped, switched between modes and given gradients and adapters. Then modules,
    hooks, configs, buffers, modes, gradients and generator states are what they were. The values of weights are not kept:
    who changes them puts them back.
    """
    modules = list(model.modules())
    kinds = [(module, module.__class__) for module in modules]
    kept = _kept([*modules, *_configs(model)])
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    parameters = [(each, each.requires_grad, each.grad) for each in model.parameters()]
    for parameter, _, _ in parameters:
        parameter.grad = None
    try:
        with _generators(next(model.parameters()).device), _quiet(), _process():
            yield
    finally:
        for module, kind in kinds:
            module.__class__ = kind
        for owner, before in kept:
            _restore(owner, before)
        with torch.no_grad():
            for buffer, values in buffers:
                if not torch.equal(buffer, values):
                    buffer.copy_(values)
        for parameter, requires_grad, gradient in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient


def _configs(model: nn.Module) -> list[Any]:
    found: dict[int, Any] = {}
    waiting = [vars(module).get(name) for module in model.modules() for name in ("config", "generation_config")]
    while waiting:
        config = waiting.pop()
        if isinstance(config, (PreTrainedConfig, GenerationConfig)) and id(config) not in found:
            found[id(config)] = config
            waiting += vars(config).values()
    return list(found.values())


def _kept(owners: list[Any]) -> _Kept:
    """What stands in objects; of the containers in them a copy."""
    return [
        (owner, {key: (value, value.copy() if isinstance(value, (dict, list, set)) else None) for key, value in vars(owner).items()})
        for owner in owners
    ]  # fmt: skip


def _restore(owner: Any, before: dict[str, Any]) -> None:
    now = vars(owner)
    for key in [key for key in now if key not in before]:
        del now[key]
    for key, (value, copy) in before.items():
        if isinstance(value, (dict, set)):
            value.clear()
            value.update(copy)
        elif isinstance(value, list):
            value[:] = copy
        now[key] = value


@contextlib.contextmanager
def _generators(device: torch.device) -> Iterator[None]:
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and bars of what is done on purpose here."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    own = [logging.getLogger(name) for name in _OWN_LOGGERS]
    disabled = [logger.disabled for logger in own]
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for logger in own:
        logger.disabled = True
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
        for logger, was in zip(own, disabled, strict=True):
            logger.disabled = was


@contextlib.contextmanager
def _process() -> Iterator[None]:
    """A process as accelerate knows it, without which it logs nothing; one that was there stays."""
    if PartialState._shared_state:
        yield
        return
    PartialState()
    try:
        yield
    finally:
        PartialState._reset_state()
