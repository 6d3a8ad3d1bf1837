"""What must hold for every further family: equal prompts, rows that do not see each other, a video that counts."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import logged, row, trainer
from more_families import MORE_FAMILIES, build_family
from packed import assert_same, computed
from PIL import Image
from tiny import colour_frames, write_mp4

from videor1_trl import load_video, register_family, unregister_family
from videor1_trl.generation.requests import GenerationSettings
from videor1_trl.generation.transformers_backend import TransformersBackend
from videor1_trl.models.encoding import encode_prompt
from videor1_trl.models.refused import REFUSED as KNOWN_WRONG
from videor1_trl.models.refused import cannot_read
from videor1_trl.models.seen import seen_media


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


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_would_be_read_wrongly_is_refused_with_the_reason(families, clips, tmp_path, name):
    with pytest.raises(NotImplementedError, match="PerceptionLMModel reads its videos as images") as refused:
        trainer_of(families(name), [row(video=clips["long"])], tmp_path)
    assert "register_family('perception_lm', encode=..., join=...)" in str(refused.value)
    with pytest.raises(NotImplementedError, match="PerceptionLMModel reads its videos as images"):
        TransformersBackend(families(name).model, families(name).processor, GenerationSettings(video_max_pixels=None))


@pytest.mark.parametrize("model_type", ["molmo2", "minicpmv4_6"])
def test_models_whose_joined_rows_are_wrong_are_refused_unless_their_family_is_registered(model_type):
    model = torch.nn.Linear(1, 1)
    model.config = SimpleNamespace(model_type=model_type)
    assert cannot_read(model) == KNOWN_WRONG[model_type]
    register_family(model_type, join=lambda features: features[0])
    try:
        assert cannot_read(model) is None
    finally:
        unregister_family(model_type)


@pytest.mark.parametrize("name", ["glm4v", "glm46v"])
def test_videos_go_as_pictures_among_the_images_in_the_order_of_the_prompt(families, clips, name):
    processor, video, image = families(name).processor, load_video(clips["short"]), Image.open(clips["tall"])
    budget = {"video_max_pixels": 784, "image_max_pixels": 1568}
    for kinds in (["image", "video"], ["video", "image"]):
        messages = [{"role": "user", "content": [{"type": kind} for kind in kinds]}]
        prompt = encode_prompt(processor, messages, [video], [image], **budget)
        grids = [[1, 2, 2]] * (len(video[0]) // 2)
        grids.insert(len(grids) if kinds[0] == "video" else 0, [1, 4, 2])
        assert prompt.features["image_grid_thw"].tolist() == grids
        assert set(prompt.features) == {"pixel_values", "image_grid_thw"}
        assert set(prompt.token_types["mm_token_type_ids"]) == {0, 1}


def test_seconds_between_grids_are_those_of_each_video(families, clips):
    """Qwen2.5-Omni's own processor takes every video for one of two frames a second."""
    processor = families("qwen2_5_omni").processor
    videos = [load_video(clips["long"], fps=fps) for fps in (1.0, 4.0)]
    messages = [{"role": "user", "content": [{"type": "video"}] * 2}]
    prompt = encode_prompt(processor, messages, videos, [], video_max_pixels=784)
    found = prompt.features["video_second_per_grid"].tolist()
    assert found == pytest.approx([2 / metadata.sampled_fps for _, metadata in videos])
    assert found[0] > 2 * found[1]


def test_the_auxiliary_loss_that_keeps_rows_from_sharing_is_named(families, clips, tmp_path, caplog):
    rows = [row(video=clips["long"])]
    assert not trainer_of(families("qwen3_vl_moe"), rows, tmp_path).sharing.shares
    assert "router_aux_loss_coef=0.0" in caplog.text
    assert trainer_of(families("qwen3_vl_moe"), rows, tmp_path, router_aux_loss_coef=0.0).sharing.shares


@pytest.mark.parametrize("name", ["llava_onevision", "llava_next_video"])
def test_the_tower_is_called_once_for_videos_of_unequal_length(families, clips, tmp_path, name):
    """Also where another rank's are of one length: the number of calls must be the same on every rank."""
    rows = [row("a?", video=clips["long"]), row("b?", video=clips["short"]), row("c?", video=clips["wide"])]
    tgrpo = trainer_of(families(name), rows, tmp_path)
    prompts, _, _ = encoded_of(tgrpo, rows)
    assert len({prompt.features["pixel_values_videos"].shape[1] for prompt in prompts}) > 1
    calls = []
    hook = tgrpo.model.model.vision_tower.register_forward_pre_hook(lambda *_: calls.append(1))
    computed(tgrpo, prompts, [[20, 21]] * 3, share=True)
    hook.remove()
    assert calls == [1]


@pytest.mark.parametrize(
    "name", ["internvl", "glm4v", "glm46v", "llava_onevision", "llava_next_video", "qwen2_5_omni"]
)
def test_what_was_seen_is_shown_video_by_video(families, clips, name):
    processor, image = families(name).processor, Image.open(clips["square"])
    videos = [load_video(clips[each], fps=4.0) for each in ("short", "long")]
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "image"}, {"type": "video"}]}]
    budget = {} if "llava" in name or name == "internvl" else {"video_max_pixels": 784, "image_max_pixels": 784}
    seen = seen_media(processor, encode_prompt(processor, messages, videos, [image], **budget))
    assert len(seen) == 3
    for found, (frames, _) in zip(seen, videos, strict=False):
        expected = frames.float().mean((2, 3))
        torch.testing.assert_close(
            found.float().mean((2, 3)), expected, rtol=0, atol=6
        )  # as the codec has its colours
    colour = torch.from_numpy(np.array(image)).float().mean((0, 1))
    torch.testing.assert_close(seen[2].float().mean((0, 2, 3)), colour, rtol=0, atol=6)
