"""
Steps with groups that teach nothing, `sampling.py MODEL MEDIA OUT KIND...`, under `torch.distributed.run` or alone. KIND is `whole` (four
groups) or `spanning` (three: with two ranks one lies on both) with rollouts that follow from group and place; `own` with the model's, and
`resumed` goes on from the middle of that. OUT/KIND.RANK.json: each step's rows of a rank as they reach the loss, the groups that were replaced,
metrics; OUT/KIND.pt: the weights.
"""

import faulthandler
import json
import os
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))
faulthandler.dump_traceback_later(200, exit=True)

import torch  # noqa: E402
from accelerate import PartialState  # noqa: E402
from helpers import row  # noqa: E402
from helpers import trainer as make_trainer  # noqa: E402
from tiny import Tiny  # noqa: E402

from videor1_trl import further_prompts  # noqa: E402
from videor1_trl.models.tower import patched  # noqa: E402


MODEL, MEDIA, OUT, *KINDS = sys.argv[1:]
RANKS, VIDEOS = int(os.environ.get("WORLD_SIZE", "1")), json.loads(Path(MEDIA).read_text())["videos"]
IDLE = (0, 1, 3, 4, 5, 8, 9)


def rows():
    """Twelve questions, seven of which teach nothing, two kinds of rewards, videos among both."""
    return [
        row(
            f"{'x' * index}?", video=VIDEOS[index % 3] if index % 4 < 2 else None, kind="idle" if index in IDLE else "teaches",
            problem_type="regression" if index % 3 == 1 else "multiple choice", about="static" if index % 2 else "dynamic",
        )
        for index in range(12)
    ]  # fmt: skip


def accuracy(completions, kind, problem_type, **kwargs):
    """1 or 0 by the length of the text, a tenth of it for estimates; always 1 for questions that teach nothing."""
    odd = [float(len(each[0]["content"]) % 2) for each in completions]
    found = [1.0 if each == "idle" else value for each, value in zip(kind, odd, strict=True)]
    return [value / 10 if each == "regression" else value for value, each in zip(found, problem_type, strict=True)]


def canned(trained):
    """Makes `generate` return tokens that follow from group, place and kind, whatever the rank."""

    def completion(group, place, contrast):
        generator = torch.Generator().manual_seed(1000 * group + 10 * place + contrast)
        return torch.randint(40, 250, (6,), generator=generator)

    def generate(**kwargs):
        rows = [(each.group, each.place, 0) for each in trained._batch.rows]
        rows += [(each.group, each.place, 1) for each in trained._batch.rows if each.contrast is not None]
        rows += [(99, place, 0) for place in range(len(kwargs["input_ids"]) - len(rows))]  # dummies
        return torch.cat([kwargs["input_ids"], torch.stack([completion(*each) for each in rows])], dim=1)

    trained.accelerator.unwrap_model(trained.model).generate = generate


def run(kind):
    replaced, batches, groups = [], [], 3 if kind == "spanning" else 4
    folder = f"{OUT}/{'own' if kind == 'resumed' else kind}"
    trained = make_trainer(
        Tiny(MODEL, None, None), rows(), folder, [accuracy], per_device_train_batch_size=4 * groups // RANKS, dynamic_sampling=2,
        scale_rewards="task", objective="crpo", objective_column="about", temporal_threshold=0.05, optim="sgd", learning_rate=0.1,
        lr_scheduler_type="constant", beta=0.04, max_steps=4, weight_decay=0.0, save_strategy="steps", save_steps=2, seed=3, num_iterations=2,
    )  # fmt: skip
    if kind in ("whole", "spanning"):
        canned(trained)
    scored, fill = trained._generate_and_score_completions, further_prompts._Layout.fill

    def filling(layout, fresh):
        replaced.append(fill(layout, fresh))
        return replaced[-1]

    def noting(inputs):
        output = scored(inputs)
        contrast = output["contrast"]
        batches.append(
            {
                "prompts": [encoded.input_ids for encoded in output["encoded"]],
                "completions": [
                    ids[mask.bool()].tolist()
                    for ids, mask in zip(output["completion_ids"], output["completion_mask"], strict=True)
                ],
                "advantages": output["advantages"].tolist(),
                "contrast": [None if each is None else each.ids.tolist() for each in contrast],
                "contrast_advantages": [None if each is None else each.advantage for each in contrast],
                "pixels": [
                    None if each is None else each.encoded.features["pixel_values_videos"][0].sum().item()
                    for each in contrast
                ],
                "of_all": [output["num_items_in_batch"].item(), output["kept_share"].item()],
            }
        )
        return output

    trained._generate_and_score_completions = noting
    with patched(further_prompts._Layout, fill=filling):
        trained.train(resume_from_checkpoint=f"{folder}/checkpoint-2" if kind == "resumed" else None)
    state = PartialState()
    names = ("dynamic_sampling/rounds", "dynamic_sampling/replaced", "dynamic_sampling/left", "grad_norm")
    log = [{name: entry.get(name) for name in names} for entry in trained.state.log_history if "grad_norm" in entry]
    found = {"batches": batches, "replaced": replaced, "log": log, "moments": trained.task_spread.moments}
    Path(f"{OUT}/{kind}.{state.process_index}.json").write_text(json.dumps(found))
    if state.is_main_process:
        torch.save(trained.accelerator.unwrap_model(trained.model).state_dict(), f"{OUT}/{kind}.pt")


if __name__ == "__main__":
    for each in KINDS:
        run(each)
    PartialState().destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # torch's threads may abort a process that takes itself down at its end
