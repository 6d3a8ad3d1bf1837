"""Checks of training: what a step moves, checkpointed activations, adapters, and a model saved and loaded again."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import is_peft_available

from ..models.released import load_processor
from .bench import STEPPED, Bench, Gradients
from .prompts import taken
from .result import Broken, NotApplicable
from .rows import usable
from .unchanged import unchanged


VISION = ("vis", "image")  # in the names of a tower's modules, in all families
RATE = 1e-3  # of the step


def training_rows(bench: Bench) -> tuple[list, list[list[int]]]:
    """Two rows of a video, an image and a text, with completions."""
    names = usable(bench, ("video", "image", "text"))
    rows = [bench.prompt(name) for name in (names[0], *names)]
    return rows, [bench.completion(6, 3 * index) for index in range(len(rows))]


def is_vision(bench: Bench, name: str) -> bool:
    """Whether the parameter of that name is of the vision tower, or between it and the language model."""
    decoder = bench.base.get_decoder()
    prefixes = [prefix for prefix, module in bench.base.named_modules() if module is decoder and prefix]
    own = name.removeprefix("base_model.model.") if bench.model is not bench.base else name
    if prefixes and own.startswith(f"{prefixes[0]}."):
        return False
    return any(part in own.lower() for part in VISION)


def one_step(bench: Bench) -> str:
    """With AdamW, on the weights that are trained, in their dtype. Where there are adapters, on the parts that have some."""
    trained = {name: each for name, each in bench.model.named_parameters() if each.requires_grad}
    parts: dict[str, list[str]] = {"vision": [], "language": []}
    for name, _ in bench.model.named_parameters():
        parts["vision" if is_vision(bench, name) else "language"].append(name)
    if not usable(bench, ("video", "image")):
        del parts["vision"]
    if not trained:
        raise Broken("no weight requires a gradient: the model is quantised, or frozen.")
    gradients = _backward(bench, trained)
    moved = _stepped(trained, gradients)
    adapted, said = hasattr(bench.model, "peft_config"), []
    for part, names in parts.items():
        own = [name for name in names if name in trained]
        if not own and adapted:
            said.append(f"no adapters on the {part} weights")
            continue
        if not own:
            raise Broken(f"the {part} weights are frozen (requires_grad=False).")
        said.append(_reached(bench, part, own, gradients, moved))
    return ", ".join(said)


def _reached(bench: Bench, part: str, names: list[str], gradients: Gradients, moved: set[str]) -> str:
    """How many of the weights of a part have a gradient; raises [`~result.Broken`] where the step leaves all of them."""
    reached = [name for name in names if name in gradients.samples and gradients.samples[name].any()]
    if not reached:
        raise Broken(f"no gradient reaches the {part} weights, such as {names[0]}.")
    infinite = [name for name in reached if not gradients.samples[name].isfinite().all()]
    if infinite:
        raise Broken(f"the gradient of {infinite[0]} is no finite number.")
    if not moved.intersection(names):
        raise Broken(f"a step of {RATE:g} moves none of the {part} weights in {bench.base.dtype}.")
    return f"{len(reached)} of {len(names)} {part} tensors have a gradient"


def _backward(bench: Bench, trained: dict[str, nn.Parameter]) -> Gradients:
    room = {True: STEPPED, False: STEPPED}

    def whole(name: str, parameter: nn.Parameter) -> bool:
        vision = is_vision(bench, name)
        room[vision] -= parameter.numel()
        return room[vision] >= 0

    rows, completions = training_rows(bench)
    with torch.enable_grad():
        return bench.gradients(bench.scores(rows, completions).loss, whole)


@torch.no_grad()
def _stepped(trained: dict[str, nn.Parameter], gradients: Gradients) -> set[str]:
    """The parameters that a step moves, of those whose gradients are there; they are put back."""
    chosen = {name: trained[name] for name in gradients.whole}
    before = {name: each.detach().clone() for name, each in chosen.items()}
    try:
        for name, each in chosen.items():
            each.grad = gradients.whole[name]
        torch.optim.AdamW(chosen.values(), lr=RATE).step()
        return {name for name, each in chosen.items() if not torch.equal(each, before[name])}
    finally:
        for name, each in chosen.items():
            each.copy_(before[name])
            each.grad = None


def checkpointing(bench: Bench) -> str:
    if not bench.base.supports_gradient_checkpointing:
        raise NotApplicable(f"{type(bench.base).__name__} has no activation checkpointing.")
    results = []
    rows, completions = training_rows(bench)
    with unchanged(bench.model), torch.enable_grad():
        bench.model.train()
        for checkpointed in (False, True):
            if checkpointed and not _checkpointed(bench.base):
                raise Broken("activation checkpointing can be asked for, and switches nothing on.")
            torch.manual_seed(0)  # of what is dropped
            scores = bench.scores(rows, completions)
            results.append((scores.loss.detach(), bench.gradients(scores.loss)))
    (loss, gradients), (checkpointed_loss, checkpointed_gradients) = results
    found = bench.differ([checkpointed_loss], [loss], "losses with and without checkpointing")
    of_norm = bench.differ_in_gradients(checkpointed_gradients, gradients, "gradients with and without checkpointing")
    return f"loss within {found:.1g}, gradients within {of_norm:.1g} of their norm"


def _checkpointed(model: PreTrainedModel) -> bool:
    """Switches activation checkpointing on, and says whether any layer has it now."""
    model.activation_checkpointing_enable({"use_reentrant": False})
    return any(getattr(module, "gradient_checkpointing", False) is True for module in model.modules())


def lora(bench: Bench) -> str:
    if hasattr(bench.model, "peft_config"):
        raise NotApplicable("the model has adapters already: they are what the other checks train.")
    if not is_peft_available():
        raise NotApplicable("peft is not installed.")
    from peft import LoraConfig, get_peft_model

    rows, completions = training_rows(bench)
    before = bench.logps(rows, completions)
    with unchanged(bench.model):
        adapted = Bench(
            get_peft_model(bench.base, LoraConfig(r=4, target_modules="all-linear")), bench.processor, bench
        )
        bench.differ(adapted.logps(rows, completions), before, "log-probabilities with fresh adapters and without")
        trained = {name: each for name, each in adapted.model.named_parameters() if each.requires_grad}
        if outside := [name for name in trained if "lora_" not in name]:
            raise Broken(f"{outside[0]} is trained, and is no adapter's.")
        base = {name: _sum(each) for name, each in adapted.model.named_parameters() if name not in trained}
        with torch.enable_grad():
            gradients = adapted.gradients(adapted.scores(rows, completions).loss, lambda name, each: True)
        for name, each in trained.items():
            each.grad = gradients.whole.get(name)
        torch.optim.AdamW(trained.values(), lr=RATE).step()
        if moved := [
            name for name, each in adapted.model.named_parameters() if name in base and _sum(each) != base[name]
        ]:
            raise Broken(f"a step of the adapters moves {moved[0]} of the base model.")
        after = adapted.logps(rows, completions)
        change = max((one - other).abs().max().item() for one, other in zip(after, before, strict=True))
        if not change > 0:
            raise Broken("a step of the adapters changes no log-probability.")
        with adapted.model.disable_adapter():
            bench.differ(
                adapted.logps(rows, completions), before, "log-probabilities with adapters switched off and without"
            )
        vision = sum(is_vision(adapted, name) for name in trained)
    return f"{len(trained)} adapter tensors, {vision} of them in the tower; a step moves log-probabilities by up to {change:.1g}"


def _sum(parameter: nn.Parameter) -> float:
    return parameter.detach().float().sum(dtype=torch.float64).item()


def save_load(bench: Bench) -> str:
    if hasattr(bench.model, "peft_config"):
        raise NotApplicable(
            "a model with adapters saves those alone; the checks of adapters are in `videor1_trl.models`."
        )
    if getattr(bench.base, "is_quantized", False):
        raise NotApplicable("the model is quantised, so that its adapters alone are saved.")
    size = sum(each.numel() * each.element_size() for each in bench.model.parameters())
    with tempfile.TemporaryDirectory(prefix="videor1_contract_") as folder:
        free = shutil.disk_usage(folder).free
        if free < 1.2 * size:
            raise NotApplicable(
                f"{size / 2**30:.1f} GiB of weights, and {Path(folder).parent} has {free / 2**30:.1f} GiB free."
            )
        rows, completions = training_rows(bench)
        results = [_loss_and_gradients(bench, rows, completions)]
        bench.base.save_pretrained(folder)
        bench.processor.save_pretrained(folder)
        loaded = type(bench.base).from_pretrained(
            folder, dtype=bench.base.dtype, attn_implementation=bench.base.config._attn_implementation
        )
        for (name, one), (_, other) in zip(loaded.named_parameters(), bench.base.named_parameters(), strict=True):
            one.requires_grad_(other.requires_grad)
            if not torch.equal(one, other.cpu()):
                raise Broken(f"{name} is loaded with other values than were saved.")
        again = Bench(loaded.to(bench.device).eval(), load_processor(folder))
        again.encode_settings = bench.encode_settings
        for name in usable(bench, ("video", "image", "text")):
            if again.prompt(name).input_ids != bench.prompt(name).input_ids:
                raise Broken(f"the processor that was saved makes other tokens of the {name} prompt.")
        rows, completions = training_rows(again)
        results.append(_loss_and_gradients(again, rows, completions))
    (logps, gradients), (logps_again, gradients_again) = results
    found = bench.differ(logps_again, logps, "log-probabilities of the model as it was and loaded again")
    of_norm = bench.differ_in_gradients(
        gradients_again, gradients, "gradients of the model as it was and loaded again"
    )
    return f"weights equal, log-probabilities within {found:.1g}, gradients within {of_norm:.1g} of their norm"


def _loss_and_gradients(
    bench: Bench, rows: list, completions: list[list[int]]
) -> tuple[list[torch.Tensor], Gradients]:
    taken(bench, "text")
    with torch.enable_grad():
        scores = bench.scores(rows, completions)
        return [each.detach() for each in scores.logps], bench.gradients(scores.loss)
