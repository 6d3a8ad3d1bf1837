"""One T-GRPO step under `torch.distributed.run`, with rollouts that depend on group and place alone; writes a JSON."""

import json
import os
import sys
from pathlib import Path

import torch
from helpers import parity, row, trainer
from tiny import Tiny


def canned_rollouts(tgrpo):
    """Make `generate` return tokens drawn from (group, place, ordered or contrast), whatever rank the row is on."""

    def completion(group, place, contrast):
        generator = torch.Generator().manual_seed(1000 * group + 10 * place + contrast)
        return torch.randint(40, 250, (6,), generator=generator)

    def generate(**kwargs):
        rows = [(each.group, each.place, 0) for each in tgrpo._batch.rows]
        rows += [(each.group, each.place, 1) for each in tgrpo._batch.rows if each.contrast is not None]
        assert len(kwargs["input_ids"]) == len(rows)
        tgrpo.sums = [
            each.contrast.features["pixel_values_videos"][0].sum().item()
            for each in tgrpo._batch.rows
            if each.contrast
        ]
        return torch.cat([kwargs["input_ids"], torch.stack([completion(*each) for each in rows])], dim=1)

    tgrpo.model.generate = generate


def main(model, folder, out, per_device, *videos):
    rows = [
        row("a?", video=videos[0], problem_id=0),
        row("bb?", video=videos[1], problem_id=1),
        row("ccc?", problem_id=2),
    ]
    seen = []

    def spread(accuracies, contrast_accuracies, **kwargs):
        """A temporal reward that needs the whole group: it counts the distinct completions."""
        texts = [completion[0]["content"] for completion in kwargs["completions"] + kwargs["contrast_completions"]]
        seen.append((kwargs["problem_id"], sorted(texts), len(kwargs["contrast_completion_ids"])))
        return [len(set(texts)) * 0.1 * accuracy for accuracy in accuracies]

    if (
        os.environ.get("OBJECTIVE") == "trained"
    ):  # what needs most: contrast rollouts in the loss, log-probabilities, draws
        spread.needs_logps = True
        spread.contrast_rewards = lambda accuracies, contrast_accuracies, **group: [
            place + group["group_draw"] - sum(group["contrast_logps"][0]) for place in range(len(contrast_accuracies))
        ]
    tgrpo = trainer(
        Tiny(model, None, None), rows, folder, [parity], options={"temporal_reward_func": spread},
        per_device_train_batch_size=int(per_device), beta=0.04, temporal_bonus="advantage", optim="sgd",
        learning_rate=0.1, log_rollouts_steps=1, log_rollouts_groups=None,
    )  # fmt: skip
    canned_rollouts(tgrpo)
    tgrpo.train()
    entry = tgrpo.state.log_history[0]
    result = {
        "rewards": {name: [None if v != v else v for v in values] for name, values in tgrpo._logs["rewards"].items()},
        "advantages": list(tgrpo._logs["advantages"]),
        "metrics": {
            key: value
            for key, value in entry.items()
            if key.startswith(("temporal/", "reward", "grad_norm", "kl", "entropy"))
        },
        "seen": seen,
        "pixel_sums": tgrpo.sums,
        "embeddings": tgrpo.accelerator.unwrap_model(tgrpo.model)
        .get_input_embeddings()
        .weight[40:60]
        .flatten()
        .tolist(),
    }
    Path(f"{out}.{tgrpo.accelerator.process_index}").write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # torch's threads may abort a process that takes itself down at its end
