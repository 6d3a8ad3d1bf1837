"""
Scenarios of training on an engine, one after the other in one launch: `run.py ENGINE MODEL MEDIA OUT SCENARIO...`, under
`torch.distributed.run` or alone. MEDIA is a JSON file of videos and an image. Of each scenario the weights after training stand in
OUT/SCENARIO.pt (of all ranks together), and what each rank called, in order, in OUT/SCENARIO.RANK.json.
"""

import faulthandler
import itertools
import json
import os
import resource
import sys
import time
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))
faulthandler.dump_traceback_later(400, exit=True)  # a rank that waits for ever fails instead

import cpu  # noqa: E402


ENGINE, MODEL, MEDIA, OUT, *CHOSEN = sys.argv[1:]
SETTINGS = cpu.prepare(ENGINE)

import torch  # noqa: E402
from accelerate import PartialState  # noqa: E402
from datasets import Dataset  # noqa: E402
from helpers import parity, row, sft_config  # noqa: E402
from helpers import trainer as make_trainer  # noqa: E402
from tiny import Tiny  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from videor1_trl import VideoSFTTrainer  # noqa: E402


media = json.loads(Path(MEDIA).read_text())
VIDEOS, IMAGE = media["videos"], media["image"]
RANKS = int(os.environ.get("WORLD_SIZE", "1"))


def rows_of(name):
    """Four prompts; with two ranks the first two are on the first rank."""
    video, image, text = row("a?", video=VIDEOS[0]), row("bb?", image=IMAGE), row("ccc?")
    other = row("dddd?", video=VIDEOS[1])
    several = {**row("which?"), "videos": VIDEOS[:2]}
    bad = row("eeeee?", video="/no/such.mp4")
    return {
        "mixed": [video, image, text, row("dddd?")],  # the second rank has text only
        "videos": [video, other, text, row("ff?", video=VIDEOS[1])],
        "several": [several, text, text, row("ff?", video=VIDEOS[0])],
        "bad": [video, image, bad, bad],  # the second rank has what is skipped only
    }[name]


def canned(tgrpo, length=6):
    """Makes `generate` return tokens that follow from group, place and kind, some of which end early, whatever the rank."""

    def completion(group, place, contrast):
        generator = torch.Generator().manual_seed(1000 * group + 10 * place + contrast)
        tokens = torch.randint(40, 250, (length,), generator=generator)
        if (group + place) % 3 == 1:
            tokens[2:] = tgrpo._tokenizer.pad_token_id
            tokens[2] = tgrpo.eos_token_ids[0]
        return tokens

    def generate(**kwargs):
        batch = tgrpo._batch.rows
        rows = [(each.group, each.place, 0) for each in batch]
        rows += [(each.group, each.place, 1) for each in batch if each.contrast is not None]
        rows += [(99, place, 0) for place in range(len(kwargs["input_ids"]) - len(rows))]  # dummies
        return torch.cat([kwargs["input_ids"], torch.stack([completion(*each) for each in rows])], dim=1)

    tgrpo.accelerator.unwrap_model(tgrpo.model).generate = generate


def tgrpo(name, rows="mixed", own_rollouts=False, peft_config=None, **settings):
    rows = rows_of(rows)
    settings = {
        "per_device_train_batch_size": 16 // RANKS, "optim": "sgd", "learning_rate": 0.5, "lr_scheduler_type": "constant",
        "max_grad_norm": 1e9, "max_steps": 2, "temporal_bonus": "advantage", "seed": 3, **SETTINGS, **settings,
    }  # fmt: skip
    options = {"peft_config": peft_config}
    trained = make_trainer(Tiny(MODEL, None, None), rows, f"{OUT}/{name}", [parity], options=options, **settings)
    if not own_rollouts:
        canned(trained)
    return trained


def sft(name, rows="mixed", **settings):
    data = [{**each, "process": f"<think>{'so ' * place}</think>"} for place, each in enumerate(rows_of(rows))]
    args = sft_config(
        f"{OUT}/{name}",
        **{
            "per_device_train_batch_size": 4 // RANKS, "optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 1e9,
            "max_steps": 2, "seed": 3, "shuffle_dataset": False, **SETTINGS, **settings,
        },
    )  # fmt: skip
    if name == "sft last":  # of which the last batch has one row
        data = data + data[:1]
    columns = {key for each in data for key in each}
    return VideoSFTTrainer(MODEL, args, Dataset.from_list([{key: each.get(key) for key in columns} for each in data]))


class Times(TrainerCallback):
    """When each step of a rank ended, and the most memory that it has held."""

    def __init__(self):
        self.at = [time.perf_counter()]

    def on_step_end(self, args, state, control, **kwargs):
        self.at.append(time.perf_counter())

    def on_train_end(self, args, state, control, **kwargs):
        seconds = [after - before for before, after in itertools.pairwise(self.at)]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        path = Path(f"{OUT}/bench.{PartialState().process_index}.times.json")
        path.write_text(json.dumps({"seconds": seconds, "peak_mib": peak}))


def timed(trained):
    trained.add_callback(Times())
    return trained


def lora():
    from peft import LoraConfig

    return LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)


SCENARIOS = {
    "mixed": lambda name: tgrpo(name),
    "reference": lambda name: tgrpo(name, beta=0.04),
    "videos": lambda name: tgrpo(name, "videos"),
    "several": lambda name: tgrpo(name, "several"),
    "skipped": lambda name: tgrpo(name, "bad", on_bad_video="skip"),
    "row by row": lambda name: tgrpo(name, share_prefix=False),
    "checkpointing": lambda name: tgrpo(name, gradient_checkpointing=True),
    "accumulation": lambda name: tgrpo(
        name, per_device_train_batch_size=8 // RANKS, gradient_accumulation_steps=2, max_steps=1
    ),
    "spanning": lambda name: tgrpo(name, per_device_train_batch_size=12 // RANKS, max_steps=1),  # a group on two ranks
    "greedy": lambda name: tgrpo(name, own_rollouts=True, generation_kwargs={"do_sample": False}),
    "lora": lambda name: tgrpo(name, peft_config=lora(), beta=0.04),
    "bench": lambda name: timed(tgrpo(name, max_steps=12)),
    "trained contrast": lambda name: tgrpo(name, objective="crpo", objective_router="none", beta=0.04),
    "log-probabilities": lambda name: tgrpo(name, objective="log_prob_drop"),
    "sft": lambda name: sft(name),
    "sft padding-free": lambda name: sft(name, padding_free=True),
    "sft last": lambda name: sft(name, max_steps=-1, num_train_epochs=1),
    "sft skipped": lambda name: sft(name, "bad", on_bad_video="skip"),
}


def traced(trainer):
    """The names of modules with parameters of their own, as they are called."""
    calls = []
    for name, module in trainer.accelerator.unwrap_model(trainer.model).named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    return calls


def main():
    for name in CHOSEN:
        trainer = SCENARIOS[name](name)
        calls = traced(trainer)
        trainer.train()
        trainer.save_model(f"{OUT}/{name}/saved")
        state = trainer.accelerator.get_state_dict(
            trainer.deepspeed if trainer.is_deepspeed_enabled else trainer.model
        )
        if PartialState().is_main_process:
            torch.save({key: value.detach().clone() for key, value in state.items()}, f"{OUT}/{name}.pt")
        Path(f"{OUT}/{name}.{PartialState().process_index}.json").write_text(json.dumps(calls))
        PartialState().wait_for_everyone()
        trainer.accelerator.free_memory()
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # torch's threads may abort a process that takes itself down at its end
