"""Log-probabilities computed packed and row by row, to be compared."""

import torch
from helpers import row

from videor1_trl.rollouts import Rollouts


def prompts_of(tgrpo, media):
    """Encoded prompts of every kind: a video, an image, text, two videos, a contrast, another question on the first."""
    rows = [
        row("which way does it move?", video=media["videos"][0]),
        row("and this?", image=media["image"]),
        row("left?"),
        {**row("what is different here and there?"), "videos": media["videos"][:2]},
        row("how fast?", video=media["videos"][0]),
    ]
    loaded = tgrpo.batch_loader.load([each for each in rows for _ in range(2)], 0, 2, 2, step=1)
    return [each.encoded for each in loaded[:8:2]] + [loaded[1].contrast, loaded[8].encoded]


def padded_batch(tgrpo, rows, completions):
    """Left-padded prompts and right-padded completions as TRL makes them: ids and mask (B, P + C), and C."""
    pad = tgrpo._tokenizer.pad_token_id
    width, length = max(len(each.input_ids) for each in rows), max(1, *map(len, completions))
    ids, mask = [], []
    for each, completion in zip(rows, completions, strict=True):
        left, right = width - len(each.input_ids), length - len(completion)
        ids.append([pad] * left + each.input_ids + completion + [pad] * right)
        mask.append([0] * left + [1] * (len(each.input_ids) + len(completion)) + [0] * right)
    return torch.tensor(ids), torch.tensor(mask), length


def computed(tgrpo, rows, completions, share, weights=None, device="cpu", plain=True):
    """
    Log-probabilities and entropies (B, C), and the gradients of their weighted sum.

    Not shared they are `plain`, as with share_prefix=False: a model with one axis of positions counts those of a row from
    its padding, which float32 rounds otherwise; else as of a model that cannot be packed.
    """
    ids, mask, length = padded_batch(tgrpo, rows, completions)
    ids, mask = ids.to(device), mask.to(device)
    tgrpo.sharing.shares, tgrpo.sharing.wanted = share, share or not plain
    tgrpo._batch = Rollouts(rows, tgrpo.sharing.keeps_outputs())
    tgrpo.model.zero_grad()
    logps, entropies, _ = tgrpo._get_per_token_logps_and_entropies(
        tgrpo.model, ids, mask, length, compute_entropy=True
    )
    scored = mask[:, -length:].bool()
    weights = torch.ones_like(logps) if weights is None else weights
    (logps * weights * scored).sum().backward()
    gradients = {name: p.grad.clone() for name, p in tgrpo.model.named_parameters() if p.grad is not None}
    return logps.detach() * scored, entropies.detach() * scored, gradients


def assert_same(packed, one_by_one, of_norm=1e-5):
    """1e-5 absolute for log-probabilities and entropies, `of_norm` of a gradient's norm for gradients, in float32."""
    for found, expected in zip(packed[:2], one_by_one[:2], strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert packed[2].keys() == one_by_one[2].keys()
    largest = max(gradient.norm() for gradient in one_by_one[2].values())
    for name, expected in one_by_one[2].items():
        # a gradient that is zero in theory (a bias before a softmax) is noise: measured against the largest one
        assert (packed[2][name] - expected).norm() <= of_norm * max(expected.norm(), 1e-2 * largest), name
