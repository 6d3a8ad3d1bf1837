"""
A run of two epochs that may be killed and goes on: `resume.py ENGINE MODEL MEDIA OUT KIND KILL`. KIND is `tgrpo`, `lora` or `sft`; KILL
says where the process (the last rank of several) kills itself: `no`, `rollouts:STEP`, `save:STEP`, `evaluation:STEP` or `loss:STEP`.
Goes on from the newest whole checkpoint in OUT, where there is one. At its end OUT/weights.pt and OUT/log.json tell what it learned.
"""

import faulthandler
import json
import os
import signal
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))
faulthandler.dump_traceback_later(300, exit=True)

import cpu  # noqa: E402


ENGINE, MODEL, MEDIA, OUT, KIND, KILL = sys.argv[1:]
SETTINGS = cpu.prepare(ENGINE)

import torch  # noqa: E402
from accelerate import PartialState  # noqa: E402
from datasets import Dataset  # noqa: E402
from helpers import parity, row, sft_config  # noqa: E402
from helpers import trainer as make_trainer  # noqa: E402
from tiny import Tiny  # noqa: E402

from videor1_trl import VideoSFTTrainer  # noqa: E402


media = json.loads(Path(MEDIA).read_text())
RANKS = int(os.environ.get("WORLD_SIZE", "1"))
SEEN: list[str] = []
COMMON = {
    "optim": "adamw_torch", "learning_rate": 1e-2, "num_train_epochs": 2, "max_steps": -1, "save_strategy": "steps", "save_steps": 2,
    "eval_strategy": "steps", "eval_steps": 3, "save_total_limit": 2, "seed": 5, **SETTINGS,
}  # fmt: skip


def rows():
    """Six prompts in three steps an epoch."""
    videos, image = media["videos"], media["image"]
    return [
        row("a?", video=videos[0]), row("bb?", image=image), row("ccc?"), row("dddd?", video=videos[1]),
        row("ee?", video=videos[2]), row("f?", video=videos[3]),
    ]  # fmt: skip


def watched(completions, prompts, **kwargs):
    SEEN.append(str([prompt[-1]["content"][-1]["text"] for prompt in prompts]))
    return parity(completions)


def lora():
    from peft import LoraConfig

    return LoraConfig(r=4, target_modules=["q_proj", "v_proj"])


def build():
    if KIND == "sft":
        data = [{**each, "process": f"<think>{'so ' * place}</think>"} for place, each in enumerate(rows())]
        args = sft_config(
            OUT, **{"per_device_train_batch_size": 2 // RANKS, "per_device_eval_batch_size": 1, **COMMON}
        )
        return VideoSFTTrainer(MODEL, args, Dataset.from_list(data), Dataset.from_list(data[:2]))
    settings = {
        "per_device_train_batch_size": 8 // RANKS,
        "per_device_eval_batch_size": 4,
        "shuffle_dataset": True,
        **COMMON,
    }
    options = {"peft_config": lora() if KIND == "lora" else None}
    beta = 0.04 if KIND == "lora" else 0.0
    tiny = Tiny(MODEL, None, None)
    return make_trainer(tiny, rows(), OUT, [watched], eval_rows=rows()[:2], options=options, beta=beta, **settings)


def kill_at(trainer, place: str) -> None:
    """The last rank kills itself in the middle of a part of a step."""
    part, _, step = place.partition(":")
    if part == "no" or PartialState().process_index != RANKS - 1:
        return
    names = {
        "rollouts": "_generate_single_turn", "loss": "compute_loss", "evaluation": "prediction_step", "save": "_save_optimizer_and_scheduler",
    }  # fmt: skip
    original = getattr(trainer, names[part])

    def killing(*args, **kwargs):
        reached = trainer.state.global_step >= int(step) and (part != "rollouts" or trainer.model.training)
        if reached:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(trainer, names[part], killing)


def main():
    trainer = build()
    kill_at(trainer, KILL)
    begun = any(Path(OUT).glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=True if begun else None)
    state = trainer.accelerator.get_state_dict(trainer.deepspeed if trainer.is_deepspeed_enabled else trainer.model)
    if PartialState().is_main_process:
        torch.save({key: value.detach().clone() for key, value in state.items()}, f"{OUT}/weights.pt")
        keys = (
            "loss",
            "reward",
            "temporal/accuracy",
            "temporal/contrast_accuracy",
            "eval_loss",
            "eval_reward",
            "step",
        )
        log = [{key: entry[key] for key in keys if key in entry} for entry in trainer.state.log_history[:-1]]
        Path(f"{OUT}/log.json").write_text(json.dumps({"log": log, "seen": SEEN}))
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # torch's threads may abort a process that takes itself down at its end
