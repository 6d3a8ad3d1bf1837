"""
A run whose last rank stands still: `hang.py MODEL MEDIA OUT SECONDS PLACE`, PLACE being `rollouts`, `rewards`, `loss`, `evaluation`, `saving`,
`step` (the optimizer), `silent` (rewards, in code that lets no other thread of the rank run) or `no`.
"""

import faulthandler
import json
import re
import sys
import time
from pathlib import Path


METHODS = {
    "rollouts": "_generate_single_turn",
    "rewards": "_calculate_rewards",
    "loss": "compute_loss",
    "evaluation": "prediction_step",
    "saving": "_save_checkpoint",
    "silent": "_calculate_rewards",
}


def main(model, media, out, seconds, place):
    sys.path.insert(0, str(Path(__file__).parents[1]))
    faulthandler.dump_traceback_later(120, exit=True)
    from accelerate import PartialState
    from helpers import parity, row, trainer
    from tiny import Tiny

    from videor1_trl.scripts.watchdog import watched

    videos = json.loads(Path(media).read_text())["videos"]
    rows = [row("a?", video=videos[0]), row("bb?")]
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    tgrpo = trainer(
        Tiny(model, None, None), rows, out, [parity], eval_rows=rows, per_device_eval_batch_size=4,
        ddp_timeout=int(seconds), **settings,
    )  # fmt: skip

    def stand_still(*args, **kwargs):
        if place == "silent":
            re.match(r"(a+)+$", "a" * 60 + "b")  # years, and holds Python's lock
        time.sleep(1000)

    if PartialState().is_last_process and place in METHODS:
        setattr(tgrpo, METHODS[place], stand_still)
    if PartialState().is_last_process and place == "step":
        tgrpo.create_optimizer = stand_still
    with watched(tgrpo):
        tgrpo.train()
    assert not {"compute_loss", "_calculate_rewards"} & set(vars(tgrpo)), "nothing of the watchdog's stays"
    tgrpo.accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
