"""What must hold for every further family: equal prompts, rows that do not see each other, a video that counts."""

import numpy as np
import pytest
import torch
from helpers import logged, row, trainer
from more_families import MORE_FAMILIES, build_family
from packed import assert_same, computed
from PIL import Image
from tiny import colour_frames, write_mp4


REFUSED = ("perception_lm",)
RIGHT = tuple(name for name in MORE_FAMILIES if name not in REFUSED)


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    built = {}

    def get(name):
        if name not in built:
            built[name] = build_family(name, tmp_path_factory.mktemp(name))
        return built[name]

    return get


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Videos of unequal length and size, one of still scenes, and two images of unequal size."""
    folder = tmp_path_factory.mktemp("clips")
    still = np.broadcast_to(colour_frames(5, 1), (16, 56, 56, 3))
    scenes = np.repeat(colour_frames(6, 4), 4, axis=0)
    found = {
        "long": write_mp4(folder / "long.mp4", colour_frames(0)),
        "short": write_mp4(folder / "short.mp4", colour_frames(1, 8)),
        "wide": write_mp4(folder / "wide.mp4", colour_frames(2, 12, 56, 112)),
        "still": write_mp4(folder / "still.mp4", still),
        "scenes": write_mp4(folder / "scenes.mp4", scenes),
    }
    for name, size in (("square", (56, 56)), ("tall", (56, 112))):
        found[name] = str(folder / f"{name}.png")
        Image.fromarray(colour_frames(9, 1, size[1], size[0])[0]).save(found[name])
    return found


def rows_of(clips):
    return [
        row("which way?", video=clips["long"]),
        row("and how fast?", video=clips["short"]),
        row("which?", video=clips["wide"]),
        row("what is this?", image=clips["square"]),
        row("and this?", image=clips["tall"]),
        row("left or right?"),
        {**row("what differs?"), "videos": [clips["short"], clips["wide"]]},
        row("is it the same?", video=clips["short"], image=clips["tall"]),
        {**row("and these?"), "images": [clips["square"], clips["tall"]]},
    ]


def alternating(completions, **kwargs):
    return [float(index % 2) for index in range(len(completions))]


def trainer_of(family, rows, folder, reward=alternating, **settings):
    settings = {"video_max_pixels": 28 * 28 * 4, "video_num_workers": 0, **settings}
    return trainer(family, rows, folder, reward, **settings)


def encoded_of(tgrpo, rows):
    loaded = tgrpo.batch_loader.load([each for each in rows for _ in range(2)], 0, 2, 2, step=1)
    return [each.encoded for each in loaded[::2]], [each.contrast for each in loaded[::2]], loaded


@pytest.mark.parametrize("name", RIGHT)
def test_ordered_and_contrast_prompts_have_equal_ids(families, clips, tmp_path, name):
    rows = [row(video=clips[each]) for each in ("long", "short", "wide", "still", "scenes")]
    tgrpo = trainer_of(families(name), rows, tmp_path)
    for ordered, contrast in zip(*encoded_of(tgrpo, rows)[:2], strict=True):
        assert contrast.input_ids == ordered.input_ids
        assert contrast.token_types == ordered.token_types


@pytest.mark.parametrize("name", RIGHT)
def test_a_row_alone_is_the_row_in_a_batch_and_packed(families, clips, tmp_path, name):
    rows = rows_of(clips)
    tgrpo = trainer_of(families(name), rows, tmp_path)
    prompts, _, _ = encoded_of(tgrpo, rows)
    completions = [[20 + index] * (index % 3 + 2) for index in range(len(prompts))]
    together = computed(tgrpo, prompts, completions, share=False, plain=False)
    for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        alone = computed(tgrpo, [prompt], [completion], share=False, plain=False)
        length = len(completion)
        torch.testing.assert_close(together[0][index, :length], alone[0][0], rtol=0, atol=2e-5)
    packed = computed(tgrpo, prompts, completions, share=True)
    assert_same(packed, together)


@pytest.mark.parametrize("name", RIGHT)
def test_log_probabilities_depend_on_the_video(families, clips, tmp_path, name):
    rows = [row(video=clips["long"]), row(video=clips["long"])]
    tgrpo = trainer_of(families(name), rows, tmp_path)
    _, _, loaded = encoded_of(tgrpo, rows[:1])
    ordered, contrast = loaded[1].encoded, loaded[1].contrast
    found, _, _ = computed(tgrpo, [ordered, contrast], [[20, 21, 22]] * 2, share=True)
    assert (found[0] - found[1]).abs().max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", RIGHT)
def test_one_step_moves_the_weights_of_tower_and_language_model(families, clips, tmp_path, name):
    tgrpo = trainer_of(families(name), [row(video=clips["long"])], tmp_path, alternating, max_completion_length=12)
    before = {name: parameter.detach().clone() for name, parameter in tgrpo.model.named_parameters()}
    tgrpo.train()
    assert logged(tgrpo, "reward_std")[0] > 0, "the rollouts must differ for this test to say anything"
    moved = {name for name, parameter in tgrpo.model.named_parameters() if not torch.equal(parameter, before[name])}
    assert any("visual" in name or "vision" in name for name in moved)
    assert any("language_model" in name for name in moved)
