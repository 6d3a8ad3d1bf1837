"""What must hold for every model family: equal prompts, a video that counts, one law for sampler and learner."""

import pytest
import torch
from helpers import logged, parity, rollouts, row, trainer
from tiny import FAMILIES, build
from transformers.video_utils import VideoMetadata

from videor1_trl.media.video import load_video
from videor1_trl.models.encoding import (
    EncodedPrompt,
    collate_features,
    collate_token_types,
    encode_prompt,
    with_preprocessing_cache,
)
from videor1_trl.models.families import takes_videos
from videor1_trl.models.positions import correct_positions
from videor1_trl.models.tokens import placeholder_token_ids
from videor1_trl.rollouts import Rollouts


VIDEO_PROMPT = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "which way?"}]}]


def per_token_logps(tgrpo, model, inputs):
    """What the trainer computes for a scored batch; (B, C)."""
    tgrpo._batch = Rollouts(inputs["encoded"])
    with torch.no_grad():
        logps, _, _ = tgrpo._get_per_token_logps_and_entropies(
            model,
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            inputs["completion_ids"].shape[1],
        )
    return logps


@pytest.fixture
def mixed_rows(media):
    videos, image = media["videos"], media["image"]
    return [
        row("which way does it move?", video=videos[0]),
        row("and what is this?", image=image),
        row("left or right?"),
        row("the same video, what now?", video=videos[1]),
    ]


def record_raw_logits(model, store):
    """Make `generate` remember the raw logits of every step in `store["logits"]`, (B, C, V)."""
    original = model.generate

    def generate(**kwargs):
        output = original(**kwargs, return_dict_in_generate=True, output_logits=True)
        store["logits"] = torch.stack(output.logits, dim=1)
        return output.sequences

    model.generate = generate


@pytest.mark.parametrize("family", FAMILIES)
def test_ordered_and_contrast_prompts_have_equal_ids_and_different_pixels(models, media, tmp_path, family):
    tgrpo = trainer(models(family), [row(video=media["videos"][0])], tmp_path)
    rows = tgrpo.batch_loader.load([row(video=media["videos"][0])] * 4, 0, 4, 2, step=1)
    ordered, contrast = rows[1].encoded, rows[1].contrast
    assert contrast.input_ids == ordered.input_ids
    assert contrast.token_types == ordered.token_types
    changed = {key for key in ordered.features if not torch.equal(ordered.features[key], contrast.features[key])}
    assert len(changed) == 1 and "pixel_values" in changed.pop()


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_change_with_the_video(models, media, tmp_path, family):
    tgrpo = trainer(models(family), [row(video=media["videos"][0])], tmp_path, beta=0.1, num_iterations=2)
    inputs = rollouts(tgrpo)
    other = tgrpo.batch_loader.load([row(video=media["videos"][2])] * 4, 0, 4, 2, step=1)
    changed = {**inputs, "encoded": [each.encoded for each in other]}
    for model in (tgrpo.model, tgrpo.ref_model):
        before, after = per_token_logps(tgrpo, model, inputs), per_token_logps(tgrpo, model, changed)
        assert (before - after).abs().max() > 1e-3
    before = per_token_logps(tgrpo, tgrpo.model, inputs)
    torch.testing.assert_close(inputs["old_per_token_logps"], before, rtol=0, atol=1e-5)
    reference = per_token_logps(tgrpo, tgrpo.ref_model, inputs)
    torch.testing.assert_close(inputs["ref_per_token_logps"], reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_equal_those_of_the_rollouts_raw_logits(models, mixed_rows, tmp_path, family):
    """Sampler and learner see the same tokens, frames and positions, in a batch of video, image and text rows."""
    tgrpo = trainer(
        models(family),
        mixed_rows,
        tmp_path,
        per_device_train_batch_size=16,
        beta=0.1,
        num_iterations=2,
        max_completion_length=8,
    )
    store = {}
    record_raw_logits(tgrpo.model, store)
    scored = {}
    original = tgrpo._generate_and_score_completions
    tgrpo._generate_and_score_completions = lambda inputs: scored.setdefault("batch", original(inputs))
    rollouts(tgrpo)
    batch = scored["batch"]
    ids, mask = batch["completion_ids"], batch["completion_mask"].bool()
    logits = store["logits"][: len(ids), : ids.shape[1]].float()
    expected = logits.log_softmax(-1).gather(2, ids.unsqueeze(-1)).squeeze(-1)
    for name in ("old_per_token_logps", "ref_per_token_logps"):
        torch.testing.assert_close(batch[name][mask], expected[mask], rtol=0, atol=1e-4)
    torch.testing.assert_close(per_token_logps(tgrpo, tgrpo.model, batch)[mask], expected[mask], rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_step_moves_the_weights_of_tower_and_language_model(models, media, tmp_path, family):
    rows = [row(video=media["videos"][0])]
    tgrpo = trainer(models(family), rows, tmp_path, max_completion_length=12)
    before = {name: parameter.detach().clone() for name, parameter in tgrpo.model.named_parameters()}
    tgrpo.train()
    assert logged(tgrpo, "reward_std")[0] > 0, "the rollouts must differ for this test to say anything"
    moved = {name for name, parameter in tgrpo.model.named_parameters() if not torch.equal(parameter, before[name])}
    assert any("visual" in name or "vision" in name for name in moved)
    assert any("language_model" in name or "text_model" in name for name in moved)


@pytest.mark.parametrize("family", FAMILIES)
def test_visual_placeholders_are_never_sampled(models, media, tmp_path, family):
    tgrpo = trainer(models(family), [row(video=media["videos"][0])], tmp_path, max_completion_length=24)
    forbidden = placeholder_token_ids(tgrpo.model, tgrpo.processing_class)
    assert {tgrpo._tokenizer.convert_tokens_to_ids(t) for t in ("<|video_pad|>", "<image>")} & set(forbidden)
    with torch.no_grad():  # a model that would sample nothing else
        head = tgrpo.model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.clone())  # untied
        head.weight[forbidden] *= 50
    inputs = rollouts(tgrpo)
    assert not torch.isin(inputs["completion_ids"], torch.tensor(forbidden)).any()


def positions(model, ids, kinds, **grids):
    found, deltas = model.model.get_rope_index(
        torch.tensor([ids]),
        mm_token_type_ids=torch.tensor([kinds]),
        attention_mask=torch.ones(1, len(ids)).long(),
        **grids,
    )
    return found[:, 0].tolist(), deltas[0].item()


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
class TestPositions:
    """By hand: text counts on, a video spans (t, h, w) from its start, text goes on behind the largest of the three."""

    @pytest.fixture
    def model(self, tmp_path, family):
        model = build(family, tmp_path).model
        correct_positions(model)
        return model

    def seconds(self, family, count):
        # Qwen2.5-VL: 2 positions a second, so a temporal patch per second moves on by 2; Qwen2-VL: by 1
        return {"second_per_grid_ts": torch.ones(count)} if family == "qwen2_5_vl" else {}

    def test_text_after_one_video(self, model, family):
        video = model.config.video_token_id
        ids, kinds = [20, 21] + [video] * 12 + [22, 23], [0, 0] + [2] * 12 + [0, 0]
        grid = torch.tensor([[12, 2, 2]])  # 12 x 1 x 1 tokens after merging
        found, delta = positions(model, ids, kinds, video_grid_thw=grid, **self.seconds(family, 1))
        step = 2 if family == "qwen2_5_vl" else 1
        last = 2 + 11 * step
        assert found[0] == [0, 1, *range(2, last + 1, step), last + 1, last + 2]
        assert found[1] == [0, 1, *[2] * 12, last + 1, last + 2]
        assert found[2] == found[1]
        assert delta == last + 3 - len(ids)

    def test_text_after_two_videos(self, model, family):
        video = model.config.video_token_id
        ids, kinds = [20] + [video] * 4 + [21] + [video] * 6 + [22], [0] + [2] * 4 + [0] + [2] * 6 + [0]
        grid = torch.tensor([[4, 2, 2], [6, 2, 2]])
        found, _ = positions(model, ids, kinds, video_grid_thw=grid, **self.seconds(family, 2))
        step = 2 if family == "qwen2_5_vl" else 1
        first = list(range(1, 1 + 4 * step, step))
        between = first[-1] + 1
        second = list(range(between + 1, between + 1 + 6 * step, step))
        assert found[0] == [0, *first, between, *second, second[-1] + 1]
        assert found[1] == [0, *[1] * 4, between, *[between + 1] * 6, second[-1] + 1]

    def test_text_after_a_video_and_an_image(self, model, family):
        video, image = model.config.video_token_id, model.config.image_token_id
        ids = [20] + [video] * 5 + [21] + [image] * 6 + [22]
        kinds = [0] + [2] * 5 + [0] + [1] * 6 + [0]
        found, _ = positions(
            model,
            ids,
            kinds,
            video_grid_thw=torch.tensor([[5, 2, 2]]),
            image_grid_thw=torch.tensor([[1, 4, 6]]),  # 2 x 3 tokens
            **self.seconds(family, 1),
        )
        step = 2 if family == "qwen2_5_vl" else 1
        between = 1 + 4 * step + 1
        start = between + 1
        assert found[0] == [0, *range(1, 2 + 4 * step, step), between, *[start] * 6, start + 3]
        assert found[1] == [0, *[1] * 5, between, *[start] * 3, *[start + 1] * 3, start + 3]
        assert found[2] == [0, *[1] * 5, between, *[start, start + 1, start + 2] * 2, start + 3]

    def test_padding_and_text_rows_keep_their_positions(self, model, family):
        video = model.config.video_token_id
        ids = torch.tensor([[0, 0, 20] + [video] * 4 + [21], [20, 21, 22, 23, 24, 25, 26, 27]])
        kinds = torch.tensor([[0, 0, 0] + [2] * 4 + [0], [0] * 8])
        mask = torch.tensor([[0, 0] + [1] * 6, [1] * 8])
        found, deltas = model.model.get_rope_index(
            ids, mm_token_type_ids=kinds, attention_mask=mask, video_grid_thw=torch.tensor([[4, 2, 2]]),
            **self.seconds(family, 1),
        )  # fmt: skip
        step = 2 if family == "qwen2_5_vl" else 1
        assert found[0, 0].tolist()[2:] == [0, *range(1, 1 + 4 * step, step), 1 + 3 * step + 1]
        assert found[0, 1].tolist() == list(range(8))
        assert deltas.flatten().tolist() == [1 + 3 * step + 2 - 6, 0]

    def test_correcting_twice_changes_nothing_more(self, model, family):
        video = model.config.video_token_id
        arguments = ([20] + [video] * 12 + [22], [0] + [2] * 12 + [0])
        once = positions(model, *arguments, video_grid_thw=torch.tensor([[12, 2, 2]]), **self.seconds(family, 1))
        correct_positions(model)
        assert once == positions(
            model, *arguments, video_grid_thw=torch.tensor([[12, 2, 2]]), **self.seconds(family, 1)
        )

    def test_nothing_changes_where_the_installed_rule_is_right(self, model, family):
        """A video longer in space than in time."""
        video = model.config.video_token_id
        arguments = ([20] + [video] * 8 + [22, 23], [0] + [2] * 8 + [0, 0])
        grids = {"video_grid_thw": torch.tensor([[1, 8, 4]]), **self.seconds(family, 1)}
        corrected = positions(model, *arguments, **grids)
        own = type(model.model).get_rope_index
        model.model.get_rope_index = own.__get__(model.model)
        assert corrected == positions(model, *arguments, **grids)


def test_a_model_whose_own_rule_is_the_released_one_keeps_it(tmp_path):
    model = build("qwen2_vl", tmp_path).model

    class Released(type(model.model)):
        calls = 0

        def get_rope_index(self, *args, **kwargs):
            Released.calls += 1
            found, _ = super().get_rope_index(*args, **kwargs)
            found[:, :, 9:] += 7  # the video of 8 x 1 x 1 tokens reaches 8; transformers 5.23 goes on at 2, not 9
            return found, found.max() + 1 - torch.tensor([[found.shape[2]]])

    model.model.__class__ = Released
    video = model.config.video_token_id
    arguments = ([20] + [video] * 8 + [22, 23], [0] + [2] * 8 + [0, 0])
    uncorrected = positions(model, *arguments, video_grid_thw=torch.tensor([[8, 2, 2]]))
    assert uncorrected[0][0][-2:] == [9, 10]
    correct_positions(model)
    assert positions(model, *arguments, video_grid_thw=torch.tensor([[8, 2, 2]])) == uncorrected
    assert Released.calls == 2


def test_positions_of_other_families_are_left_alone(models):
    model = models("qwen3_vl").model
    correct_positions(model)
    assert "get_rope_index" not in vars(model.model)


def test_rollout_and_training_use_the_released_positions(models, media, tmp_path):
    """The trainer corrects the policy and the reference; decoding goes on behind the video's largest position."""
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, beta=0.1)
    for model in (tgrpo.model, tgrpo.ref_model):
        video = model.config.video_token_id
        found, _ = positions(
            model, [20] + [video] * 8 + [21], [0] + [2] * 8 + [0],
            video_grid_thw=torch.tensor([[8, 2, 2]]), second_per_grid_ts=torch.tensor([1.0]),
        )  # fmt: skip
        assert found[0][-1] == 1 + 7 * 2 + 1


def test_collated_features_follow_the_rows():
    first = EncodedPrompt([1], features={"pixels": torch.ones(2, 3), "grid": torch.tensor([[1]])})
    text = EncodedPrompt([1])
    second = EncodedPrompt([1], features={"pixels": torch.zeros(1, 3), "grid": torch.tensor([[2]])})
    found = collate_features([first, text, second, first])
    assert found["grid"].tolist() == [[1], [2], [1]]
    assert found["pixels"].tolist() == [[1, 1, 1]] * 2 + [[0, 0, 0]] + [[1, 1, 1]] * 2
    assert collate_features([text]) == {}


def test_features_of_different_length_are_padded_with_zeros():
    short = EncodedPrompt([1], features={"pixel_values": torch.ones(1, 2, 1)})
    long = EncodedPrompt([1], features={"pixel_values": torch.full((1, 3, 2), 2.0)})
    found = collate_features([short, long])["pixel_values"]
    assert found.tolist() == [[[1, 0], [1, 0], [0, 0]], [[2, 2], [2, 2], [2, 2]]]


def test_text_rows_have_token_types_of_zero():
    video = EncodedPrompt([5, 6, 7], {"mm_token_type_ids": [0, 2, 0]})
    assert collate_token_types([video, EncodedPrompt([5, 6])]) == {"mm_token_type_ids": [[0, 2, 0], [0, 0]]}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_frames_are_preprocessed_once_per_batch(models, media, family):
    processor = models(family).processor
    calls = []
    original = type(processor.video_processor).__call__

    class Counting(type(processor.video_processor)):
        def __call__(self, videos, **kwargs):
            calls.append(len(videos))
            return original(self, videos, **kwargs)

    video = load_video(media["videos"][0])
    plain = encode_prompt(processor, VIDEO_PROMPT, [video], [])
    cached = with_preprocessing_cache(processor)
    cached.video_processor._video_processor.__class__ = Counting
    try:
        first = encode_prompt(cached, VIDEO_PROMPT, [video], [])
        encode_prompt(
            cached, [*VIDEO_PROMPT, {"role": "assistant", "content": [{"type": "text", "text": "x"}]}], [video], []
        )
        encode_prompt(cached, VIDEO_PROMPT, [(video[0].clone(), video[1])], [])
    finally:
        processor.video_processor.__class__ = Counting.__base__
    assert calls == [1, 1]
    assert first.input_ids == plain.input_ids
    assert all(torch.equal(first.features[key], plain.features[key]) for key in plain.features)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_the_pixel_budget_bounds_every_frame(models, family):
    frames = torch.zeros(8, 3, 280, 560, dtype=torch.uint8)
    metadata = VideoMetadata(total_num_frames=8, fps=2.0, frames_indices=list(range(8)))
    processor = models(family).processor
    for budget in (28 * 28 * 2, 28 * 28 * 8):
        encoded = encode_prompt(processor, VIDEO_PROMPT, [(frames, metadata)], [], video_max_pixels=budget)
        _, height, width = encoded.features["video_grid_thw"][0].tolist()
        pixels = height * width * 14 * 14
        assert budget / 2 <= pixels <= budget
    larger = encode_prompt(
        processor, VIDEO_PROMPT, [(frames[:, :, :28, :28].clone(), metadata)], [],
        video_max_pixels=28 * 28 * 8, video_min_pixels=28 * 28 * 4,
    )  # fmt: skip
    _, height, width = larger.features["video_grid_thw"][0].tolist()
    assert 28 * 28 * 4 <= height * width * 14 * 14 <= 28 * 28 * 8


def test_processors_without_video_are_told_apart(models):
    assert takes_videos(models().processor)
    assert not takes_videos(models().processor.tokenizer)


def test_parity_of_the_helper_is_what_it_says():
    assert parity([[{"content": "abc"}], [{"content": ""}]]) == [1.0, 0.0]
