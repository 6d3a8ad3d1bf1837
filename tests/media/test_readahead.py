"""Videos decoded ahead, once, and kept within a bound; the next batch prepared while a step runs, and never wrong."""

import copy
import os
import subprocess
import sys
import threading
import time
import weakref

import pytest
import torch
from helpers import CountingLoader, loader, logged, parity, row, trainer
from hypothesis import given, settings
from hypothesis import strategies as st

from videor1_trl.data.placing import PromptError
from videor1_trl.media.errors import VideoError
from videor1_trl.media.readahead import LookAhead, VideoStore
from videor1_trl.media.video import load_video


PATIENCE = 30  # seconds that a test waits for what must happen


def reader(read, size=100):
    """Reads a source into `size` bytes of frames, and takes note of it."""

    def call(source):
        read.append(source)
        return torch.zeros(size, dtype=torch.uint8), None

    return call


def files(folder, names):
    for name in names:
        (folder / name).write_text(name)
    return [str(folder / name) for name in names]


def gone(reference):
    """Whether what it refers to is let go; the thread that made it may take a moment to end."""
    deadline = time.monotonic() + PATIENCE
    while reference() is not None and time.monotonic() < deadline:
        time.sleep(0.001)
    return reference() is None


class TestVideoStore:
    def test_a_video_that_comes_again_is_not_read_again(self, tmp_path):
        read, [path] = [], files(tmp_path, ["a"])
        store = VideoStore(reader(read), max_bytes=1000)
        assert store.get(path)[0] is store.get(path)[0]
        assert read == [path]

    def test_clips_of_a_file_are_told_apart(self, tmp_path):
        read, [path] = [], files(tmp_path, ["a"])
        store = VideoStore(reader(read), max_bytes=1000)
        for start in (0.0, 1.0, 0.0):
            store.get({"path": path, "start": start, "end": 2.0})
        assert [each["start"] for each in read] == [0.0, 1.0]

    def test_whatever_a_source_says_tells_it_apart(self, tmp_path):
        """A loader of one's own is given the whole dict."""
        read, [path] = [], files(tmp_path, ["a"])
        store = VideoStore(reader(read), max_bytes=1000)
        for extra in ({}, {"reverse": True}, {"reverse": True}, {"crop": [1, 2]}, {"crop": [1, 2]}):
            store.get({"path": path, **extra})
        assert read == [{"path": path}, {"path": path, "reverse": True}, *[{"path": path, "crop": [1, 2]}] * 2]

    def test_frames_count_with_all_that_they_hold(self, tmp_path):
        """A loader may return a few frames as a view of many."""
        paths = files(tmp_path, "ab")
        store = VideoStore(lambda source: (torch.zeros(1000, dtype=torch.uint8)[::100], None), max_bytes=1500)
        for path in paths:
            store.get(path)
        assert len(store._kept) == 1 and store._kept.currsize == 1000

    def test_a_changed_file_is_read_anew(self, tmp_path):
        read, [path] = [], files(tmp_path, ["a"])
        store = VideoStore(reader(read), max_bytes=1000)
        store.get(path)
        os.utime(path, ns=(1, 1))
        store.get(path)
        (tmp_path / "a").write_text("longer")
        store.get(path)
        assert len(read) == 3

    def test_nothing_is_kept_of_what_has_no_file(self):
        read, frames = [], torch.zeros(2)
        store = VideoStore(reader(read), max_bytes=1000)
        for source in (frames, frames, {"bytes": b"x", "path": "a.mp4"}, b"x", b"x"):
            store.get(source)
        assert len(read) == 5

    def test_a_file_of_a_store_is_kept_by_its_address(self):
        read = []
        store = VideoStore(reader(read), max_bytes=1000)
        for source in ("s3://x/a.mp4", "s3://x/a.mp4", {"path": "s3://x/a.mp4", "start": 1.0}, "s3://x/v.zip::a.mp4"):
            store.get(source)
        assert len(read) == 3

    @settings(deadline=None)
    @given(asked=st.lists(st.integers(0, 5), max_size=20), room=st.integers(0, 4))
    def test_the_longest_unused_leave_first_and_the_bound_holds(self, tmp_path_factory, asked, room):
        paths = files(tmp_path_factory.mktemp("store"), "abcdef")
        read, kept, expected = [], [], []
        store = VideoStore(reader(read), max_bytes=room * 100 + 50)
        for index in asked:
            store.get(paths[index])
            if index not in kept:
                expected.append(paths[index])
            kept = [*(each for each in kept if each != index), index][-room:] if room else []
            assert store._kept.currsize == 100 * len(store._kept) <= room * 100
        assert read == expected

    def test_announced_videos_are_read_once_in_other_threads(self, tmp_path):
        paths, threads = files(tmp_path, "abc"), []

        def read(source):
            threads.append(threading.current_thread())
            return torch.zeros(1), source

        store = VideoStore(read, num_workers=2)
        store.announce([*paths, paths[0]])
        assert [store.get(path)[1] for path in paths] == paths
        assert len(threads) == 3 and threading.main_thread() not in threads

    def test_no_more_threads_than_workers_read_at_once(self, tmp_path):
        reading, most, lock = [0], [0], threading.Lock()

        def read(source):
            with lock:
                reading[0] += 1
                most[0] = max(most[0], reading[0])
            time.sleep(0.01)
            with lock:
                reading[0] -= 1
            return torch.zeros(1), None

        store, paths = VideoStore(read, num_workers=3), files(tmp_path, "abcdefghij")
        store.announce(paths)
        for path in paths:
            store.get(path)
        assert most[0] == 3

    def test_two_threads_that_ask_for_a_video_read_it_once(self, tmp_path):
        read, may_end, [path] = [], threading.Event(), files(tmp_path, "a")

        def slowly(source):
            read.append(source)
            may_end.wait(PATIENCE)
            return torch.zeros(1), None

        store, found = VideoStore(slowly, max_bytes=100), []  # whoever is late finds it kept
        threads = [threading.Thread(target=lambda: found.append(store.get(path))) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        may_end.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert read == [path] and found[0] is found[1]

    def test_an_error_is_raised_where_its_video_is_asked_for(self, tmp_path):
        def read(source):
            raise VideoError(source, "broken")

        store, [path] = VideoStore(read, num_workers=1), files(tmp_path, "a")
        store.announce([path])
        with pytest.raises(VideoError, match="broken"):
            store.get(path)

    def test_where_no_thread_can_be_started_the_caller_reads(self, tmp_path, monkeypatch):
        def refuse(thread):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        read, paths = [], files(tmp_path, "ab")
        store = VideoStore(reader(read), num_workers=2)
        store.announce(paths)
        assert [store.get(path)[1] for path in paths] == [None, None] and read == paths

    @pytest.mark.parametrize("workers", [0, 2])
    def test_an_announced_video_is_held_for_as_many_uses_and_then_let_go(self, tmp_path, workers):
        read, [one, other] = [], files(tmp_path, "ab")
        store = VideoStore(reader(read), num_workers=workers)
        store.announce([one, other, one])
        first = store.get(one)[0]
        store.get(other)
        assert store.get(one)[0] is first and sorted(read) == [one, other]
        alive = weakref.ref(first)
        del first
        assert gone(alive)
        store.get(one)
        assert read.count(one) == 2

    @pytest.mark.parametrize("workers", [0, 2])
    def test_what_is_forgotten_is_let_go_whatever_was_asked_for_of_it(self, tmp_path, workers):
        read, paths = [], files(tmp_path, "abc")
        store = VideoStore(reader(read), num_workers=workers)
        store.announce([*paths, paths[0]])
        held = weakref.ref(store.get(paths[0])[0])
        store.forget([*paths, paths[0]])
        assert gone(held) and not store._held

    def test_one_who_gives_up_lets_another_keep_what_both_announced(self, tmp_path):
        read, [path] = [], files(tmp_path, "a")
        store = VideoStore(reader(read), num_workers=1)
        store.announce([path])
        store.announce([path])
        store.forget([path])
        store.get(path)
        assert read == [path]

    def test_no_more_than_asked_is_decoded_ahead(self, tmp_path):
        read, paths = [], files(tmp_path, "abcdefgh")
        store = VideoStore(reader(read), num_workers=2, max_ahead=3)
        store.announce(paths)
        for place, path in enumerate(paths):
            deadline = time.monotonic() + PATIENCE
            while len(read) < min(place + 3, 8) and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.005)
            assert sorted(read) == paths[: place + 3]
            store.get(path)
        assert len(read) == 8

    def test_what_was_forgotten_or_asked_for_makes_room_ahead(self, tmp_path):
        read, paths = [], files(tmp_path, "abcd")
        store = VideoStore(reader(read), num_workers=1, max_ahead=1)
        store.announce(paths)
        store.get(paths[3])  # out of turn: its reader is the one who asks
        store.forget(paths[:2])
        store.get(paths[2])
        assert sorted(read) in ([paths[0], *paths[2:]], paths[2:])
        assert not store._held and not store._num_ahead

    def test_a_video_kept_when_it_was_announced_is_not_read_again_whatever_comes_between(self, tmp_path):
        read, paths = [], files(tmp_path, "ab")
        store = VideoStore(reader(read), num_workers=1, max_bytes=100)
        store.get(paths[0])
        store.announce([paths[0]])
        store.get(paths[1])  # takes its room
        store.get(paths[0])
        assert read == paths

    @settings(deadline=None, max_examples=50)
    @given(
        asked=st.lists(st.integers(0, 3), max_size=12),
        given_up=st.integers(0, 12),
        workers=st.integers(0, 2),
        ahead=st.sampled_from([None, 1, 2]),
    )
    def test_whatever_is_asked_for_and_given_up_each_is_read_once_and_nothing_stays(
        self, tmp_path_factory, asked, given_up, workers, ahead
    ):
        paths = files(tmp_path_factory.mktemp("store"), "abcd")
        read, used = [], [paths[index] for index in asked]
        store = VideoStore(reader(read), num_workers=workers, max_ahead=ahead)
        store.announce(used)
        for path in used[given_up:]:
            store.get(path)
        store.forget(used[:given_up])
        assert max(map(read.count, read), default=0) <= 1 and set(used[given_up:]) <= set(read) <= set(used)
        assert not store._held and store._num_ahead == 0

    def test_without_workers_nothing_runs_in_a_thread(self, tmp_path):
        read, paths = [], files(tmp_path, "ab")
        VideoStore(reader(read)).announce(paths)
        assert read == []


class TestLookAhead:
    def test_the_expected_batch_is_prepared_meanwhile(self):
        prepared = []
        ahead = LookAhead(lambda inputs, step: prepared.append((inputs, step, threading.current_thread())), str)
        ahead.expect("a")
        ahead.expect("b")
        ahead.take("a", 1, following=(2,))
        ahead.take("b", 2, following=(3,))
        assert [each[:2] for each in prepared] == [("a", 1), ("b", 2)]
        assert [each[2] is threading.main_thread() for each in prepared] == [True, False]

    @settings(deadline=None)
    @given(
        batches=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=8),
        expected=st.lists(st.integers(0, 3), max_size=8),
        guessed=st.integers(0, 2),
    )
    def test_whatever_was_expected_the_result_is_that_of_the_inputs(self, batches, expected, guessed):
        """Wrong expectations, repeated batches, another step than foreseen: wasted work at most."""
        ahead = LookAhead(lambda inputs, step: (inputs, step), str)
        for index, (inputs, step) in enumerate(batches):
            for each in expected[index : index + 2]:
                ahead.expect(each)
            assert ahead.take(inputs, step, following=(guessed,)) == (inputs, step)

    def test_an_error_surfaces_with_its_batch_and_the_next_goes_on(self):
        def prepare(inputs, step):
            if inputs == "bad":
                raise PromptError("this one")
            return inputs

        ahead = LookAhead(prepare, str)
        for inputs in ("a", "bad", "c"):
            ahead.expect(inputs)
        assert ahead.take("a", 0, following=(0,)) == "a"
        with pytest.raises(PromptError, match="this one"):
            ahead.take("bad", 0, following=(0,))
        assert ahead.take("c", 0, following=(0,)) == "c"

    def test_only_one_batch_is_prepared_ahead(self):
        prepared = []
        ahead = LookAhead(lambda inputs, step: prepared.append(inputs), str)
        for inputs in "abcd":
            ahead.expect(inputs)
        ahead.take("a", 0, following=(0,))
        deadline = time.monotonic() + PATIENCE
        while len(prepared) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert prepared == ["a", "b"]


def test_videos_in_a_tensor_column_are_not_mistaken_for_each_other(models):
    """Each video is a view that is made anew and let go, so that the next may have its id."""
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randint(0, 256, (1, 4, 3, 28, 28), generator=generator, dtype=torch.uint8) for _ in range(6)]
    rows = [{"prompt": row(f"{n}?")["prompt"], "videos": video} for n, video in enumerate(columns) for _ in range(2)]
    for workers in (0, 3):
        loaded = loader(models(), num_workers=workers).load(rows, 0, 2, 1, step=1)
        seen = {each.encoded.features["pixel_values_videos"].numpy().tobytes() for each in loaded}
        assert len(seen) == 6


def test_one_embedded_video_is_decoded_once_for_several_prompts(models, media):
    data = open(media["videos"][0], "rb").read()
    counting = CountingLoader()
    rows = [row(f"{n}?", video={"bytes": bytes(data), "path": None}) for n in range(3) for _ in range(2)]
    loader(models(), load_video=counting, num_workers=2).load(rows, 0, 2, 1, step=1)
    assert len(counting.sources) == 1


def test_rows_of_objects_are_not_prepared_ahead(models):
    """They can be told apart by identity only, which a repeated batch does not keep."""
    rows = [{**row("a?"), "video": torch.zeros(4, 3, 28, 28, dtype=torch.uint8)}] * 2
    ahead = loader(models(), num_workers=2)
    for _ in range(3):
        ahead.expect(rows)
    assert not ahead._ahead["train"]._expected
    assert ahead.load(rows, 0, 2, 1, 1)[0].encoded.features


def test_a_changed_processor_is_used_ahead_too(models, media):
    processor = copy.deepcopy(models().processor)
    rows = [[row(f"{n}?", video=media["videos"][0])] * 2 for n in range(3)]
    ahead = loader(models(), num_workers=2)
    ahead.processor = processor
    for batch in rows[:2]:
        ahead.expect(batch)
    before = [ahead.load(batch, 0, 2, 1, 1)[0].encoded.input_ids for batch in rows[:2]]
    processor.chat_template = processor.chat_template.replace("assistant", "helper")
    ahead.expect(rows[1])
    ahead.expect(rows[2])
    after = [ahead.load(batch, 0, 2, 1, 1)[0].encoded.input_ids for batch in rows[1:]]
    texts = [processor.tokenizer.decode(ids) for ids in (*before, *after)]
    assert ["helper" in text for text in texts] == [False, False, True, True]


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one.group, one.place, one.inputs) == (other.group, other.place, other.inputs)
        for encoded, wanted in ((one.encoded, other.encoded), (one.contrast, other.contrast)):
            assert (encoded is None) == (wanted is None)
            if encoded is not None:
                assert encoded.input_ids == wanted.input_ids
                assert encoded.features.keys() == wanted.features.keys()
                assert all(torch.equal(value, wanted.features[key]) for key, value in encoded.features.items())


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "smolvlm"])
def test_rows_are_the_same_with_threads_ahead_and_kept(models, media, family):
    rows = [row("a?", video=media["videos"][0]), row("b?", video=media["videos"][1]), row("c?", image=media["image"])]
    batches = [[each for each in rows[start:] + rows[:start] for _ in range(2)] for start in range(3)]
    plain, ahead = loader(models(family)), loader(models(family), num_workers=3, cache_bytes=2**20)
    for batch in batches:
        ahead.expect(batch)
    for step, batch in enumerate(batches):
        same(ahead.load(batch, 0, 2, 1, step, step + 1), plain.load(batch, 0, 2, 1, step))


def test_the_first_bad_row_is_named_whichever_thread_fails_first(models, media, tmp_path):
    slow, fast = str(tmp_path / "slow.mp4"), str(tmp_path / "fast.mp4")

    def read(source, **settings):
        if source == slow:
            time.sleep(0.1)
        return load_video(source, **settings)

    rows = [row("a?", video=media["videos"][0]), row("b?", video=slow), row("c?", video=fast)]
    with pytest.raises(VideoError, match="slow.mp4"):
        loader(models(), load_video=read, num_workers=3).load([r for r in rows for _ in range(2)], 0, 2, 1, step=1)


def test_a_contrast_that_writes_into_its_frames_changes_no_other_row(models, media):
    def blacken(frames, generator):
        return frames.zero_()

    rows = [row("a?", video=media["videos"][0])] * 2 + [row("b?", video=media["videos"][0])] * 2
    writing = loader(models(), contrast=blacken, cache_bytes=2**20)
    plain = loader(models(), contrast=None)
    for step in (1, 2):
        found, expected = writing.load(rows, 0, 2, 1, step), plain.load(rows, 0, 2, 1, step)
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(
                one.encoded.features["pixel_values_videos"], other.encoded.features["pixel_values_videos"]
            )


class TestTraining:
    def rows(self, media):
        videos = media["videos"]
        return [row("a?", video=videos[0]), row("b?"), row("c?", video=videos[1]), row("d?", video=videos[0])]

    @pytest.mark.slow
    def test_losses_are_the_same_with_and_without(self, models, media, tmp_path):
        results = []
        for extra in ({}, {"video_num_workers": 0, "video_cache_gb": 0.0}):
            torch.manual_seed(0)
            tgrpo = trainer(
                models(), self.rows(media), tmp_path, max_steps=6, num_iterations=2, gradient_accumulation_steps=2,
                shuffle_dataset=True, eval_rows=self.rows(media)[:2], eval_strategy="steps", eval_steps=2,
                per_device_eval_batch_size=4, num_generations_eval=2, **extra,
            )  # fmt: skip
            tgrpo.train()
            results.append(tgrpo)
        for key in ("loss", "grad_norm", "reward", "temporal/contrast_accuracy", "eval_reward"):
            assert logged(results[0], key) == logged(results[1], key) != [], key

    @pytest.mark.slow
    @pytest.mark.parametrize("workers, batches", [(2, 1), (0, 0)])
    def test_the_next_batch_is_decoded_while_a_step_runs(self, models, media, tmp_path, workers, batches):
        """The rewards of the first step wait for the video of the second."""
        second, ahead = threading.Event(), []

        def read(source, **settings):
            if source == media["videos"][1]:
                second.set()
            return load_video(source, **settings)

        def waiting(completions, **kwargs):
            if not ahead:
                ahead.append(second.wait(PATIENCE if workers else 0.2))
            return parity(completions)

        rows = [row("a?", video=media["videos"][0]), row("b?", video=media["videos"][1])]
        tgrpo = trainer(
            models(), rows, tmp_path, waiting, max_steps=2, video_num_workers=workers, options={"video_loader": read}
        )
        tgrpo.train()
        assert ahead == [bool(batches)]

    @pytest.mark.slow
    def test_each_video_is_decoded_once_over_steps_iterations_and_evaluations(self, models, media, tmp_path):
        counting = CountingLoader()
        tgrpo = trainer(
            models(), self.rows(media), tmp_path, max_steps=8, num_iterations=2, eval_rows=self.rows(media)[:2],
            eval_strategy="steps", eval_steps=4, per_device_eval_batch_size=4, num_generations_eval=2,
            options={"video_loader": counting},
        )  # fmt: skip
        tgrpo.train()
        assert sorted(counting.sources) == sorted(media["videos"][:2])

    @pytest.mark.slow
    def test_a_video_broken_ahead_ends_the_run_with_its_record_named(self, models, media, tmp_path):
        bad = tmp_path / "bad.mp4"
        bad.write_bytes(b"no video")
        rows = [row("a?", video=media["videos"][0], problem_id=1), row("b?", video=str(bad), problem_id=2)]
        tgrpo = trainer(models(), rows, tmp_path / "out", max_steps=2)
        with pytest.raises(VideoError, match="problem_id 2"):
            tgrpo.train()
        assert tgrpo.state.global_step == 1, "the step before it was finished"

    @pytest.mark.slow
    def test_an_evaluation_does_not_waste_the_batch_that_is_ready(self, models, media, tmp_path):
        """Batches that are prepared: 4 of training, 2 x 1 of evaluation, and at most the one behind the last of each."""
        tgrpo = trainer(
            models(), self.rows(media), tmp_path, max_steps=4, eval_rows=self.rows(media)[:2],
            eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=8, num_generations_eval=4,
        )  # fmt: skip
        prepared, original = [], tgrpo.batch_loader._load_with
        tgrpo.batch_loader._load_with = lambda *args: prepared.append(args[-1]) or original(*args)
        tgrpo.train()
        assert sum(step > 0 for step in prepared) <= 5 and sum(step == 0 for step in prepared) <= 3

    @pytest.mark.slow
    def test_no_thread_is_left_behind(self, models, media, tmp_path):
        tgrpo = trainer(models(), self.rows(media), tmp_path, max_steps=2)
        tgrpo.train()
        deadline = time.monotonic() + PATIENCE
        while any(t.name == "videor1_trl-input" for t in threading.enumerate()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(thread.name == "videor1_trl-input" for thread in threading.enumerate())


@pytest.mark.slow
def test_threads_within_operators_of_torch_do_not_abort_the_process(tmp_path):
    """A thread that is killed there calls std::terminate: exit status 134 after a run that went well."""
    script = (
        "import threading, time, torch, videor1_trl.media.readahead as inputs\n"
        "frames = torch.zeros(8, 3, 720, 1280, dtype=torch.uint8)\n"
        "def work(source):\n"
        "    end = time.monotonic() + 2\n"
        "    while time.monotonic() < end:\n"
        "        torch.nn.functional.interpolate(frames.float(), size=(224, 224))\n"
        "    return frames, None\n"
        "inputs.VideoStore(work, num_workers=2).announce(['a', 'b', 'c', 'd', 'e', 'f'])\n"
        "time.sleep(0.3)\nprint('ends')\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (found.stdout.strip(), found.returncode) == ("ends", 0), found.stderr


@pytest.mark.slow
def test_a_decoder_that_hangs_does_not_keep_the_process_from_ending(tmp_path):
    script = (
        "import sys, threading, videor1_trl.media.readahead as inputs\n"
        "started = threading.Event()\n"
        "inputs.GRACE_SECONDS = 1\n"
        "def hang(source):\n    started.set()\n    threading.Event().wait()\n"
        "inputs.VideoStore(hang, num_workers=2).announce(['a', 'b'])\n"
        "started.wait(20)\nprint('ends')\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert found.stdout.strip() == "ends" and found.returncode == 0


@pytest.mark.slow
def test_an_interrupted_process_waits_for_no_video_and_ends_as_interrupted(tmp_path):
    """Readings stop at their next packet, as if they were interrupted; what hangs is left after a moment."""
    script = (
        "import threading, time, videor1_trl.media.readahead as inputs\n"
        "from videor1_trl.media.limits import end_readings, meter, metered\n"
        "started = threading.Barrier(3)\n"
        "def slow(source):\n"
        "    started.wait(20)\n"
        "    with metered(None) as own:\n"
        "        for number in own.each(range(10**6)): time.sleep(0.01)\n"
        "store = inputs.VideoStore(slow, num_workers=2)\n"
        "store.announce(['a', 'b'])\n"
        "started.wait(20)\nend_readings()\n"
        "try: store.get('a')\n"
        "except KeyboardInterrupt: print('ends', flush=True)\n"
        "if {hangs}:\n"
        "    started.reset()\n"
        "    inputs.in_threads([threading.Event().wait], 1)\n"
    )
    for hangs, status in ((False, 0), (True, 130)):
        code = script.replace("{hangs}", str(hangs))
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert (found.stdout.strip(), found.returncode) == ("ends", status), found.stderr
