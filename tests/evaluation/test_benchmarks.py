"""The questions of the benchmarks, read from small copies of their official files."""

import json
from dataclasses import replace

import benchmark_files
import pytest

from videor1_trl import load_video
from videor1_trl.evaluation.benchmarks import BENCHMARKS, load_benchmark
from videor1_trl.evaluation.benchmarks.benchmark import letter_of
from videor1_trl.evaluation.questions import load_record_questions, questions_fingerprint
from videor1_trl.text.choices import lettered


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """`load(name, **options)`: the questions of a benchmark's small copy, by key, and the copy's folder."""
    made = {}

    def call(name, **options):
        if name not in made:
            made[name] = benchmark_files.make(name, tmp_path_factory.mktemp("benchmarks") / name)
        folder = made[name]
        options = {"configs": benchmark_files.CONFIGS.get(name), "source": folder, **options}
        root = options.pop("media_root", folder / "video" if name == "mvbench" else None)
        return {question.key: question for question in load_benchmark(name, root, **options)}, folder

    return call


def test_vsibench_asks_for_letters_and_for_numbers(load):
    questions, folder = load("vsibench")
    assert list(questions) == [f"full/{number}" for number in range(5)]
    first, count = questions["full/0"], questions["full/3"]
    assert (first.problem_type, first.options, first.gold) == ("multiple choice", ("A. left", "B. right"), "B")
    assert first.video == str(folder / "arkitscenes" / "scene0000_00.mp4")
    assert (count.problem_type, count.metric, count.gold, count.options) == ("regression", "mra", "4", ())
    assert count.task == "object_counting" and count.chance == 0 and first.chance == 0.5
    assert questions["full/0"].cluster == questions["full/2"].cluster != questions["full/1"].cluster
    assert list(load("vsibench", configs=["debiased"])[0]) == ["debiased/0", "debiased/1"]


def test_options_keep_their_letters_where_one_is_missing(tmp_path):
    """MMVU and Video-Holmes have dicts of options, of which some may be empty: D stays D."""
    row = {
        "question_type": "multiple-choice",
        "video": "videos/Art/1.mp4",
        "choices": {"A": "x", "B": "y", "C": "", "D": "right one", "E": "z"},
        "id": "validation_0",
        "question": "Which?",
        "answer": "D",
    }
    question = BENCHMARKS["mmvu"].question(row, "default", 0, tmp_path)
    assert question.options == ("A. x", "B. y", "D. right one", "E. z") and question.gold == "D"
    assert question.chance == 0.25
    row = {"video ID": "v", "Question ID": "1", "Question Type": "SR", "Question": "Which?", "Answer": "C"}
    row["Options"] = {"A": "x", "B": None, "C": "y"}
    question = BENCHMARKS["video-holmes"].question(row, "default", 0, tmp_path)
    assert question.options == ("A. x", "C. y") and question.gold == "C"


def test_videommmu_has_three_tracks_and_open_questions(load):
    questions, folder = load("videommmu")
    assert list(questions) == [
        "Perception/dev_Art_Theory_1",
        "Comprehension/validation_Math_3",
        "Adaptation/validation_Math_4",
        "Adaptation/validation_Music_5",
    ]
    art = questions["Perception/dev_Art_Theory_1"]
    assert art.video == str(folder / "Art" / "dev_Art_Theory_1.mp4")
    assert (art.task, art.options, art.gold) == ("Perception", ("A. a line", "B. a cube"), "B")
    number = questions["Adaptation/validation_Math_4"]
    assert (number.metric, number.gold, number.options, number.groups) == (
        "open",
        "0.5",
        (),
        {"discipline": "Science"},
    )


def test_mmvu_asks_its_multiple_choice_questions_and_finds_videos_behind_urls(load):
    questions, folder = load("mmvu")
    assert list(questions) == ["validation_0", "validation_2"]
    assert {question.video for question in questions.values()} == {str(folder / "videos" / "Art" / "0.mp4")}
    assert questions["validation_0"].options[4] == "E. five" and questions["validation_0"].gold == "E"
    assert len(questions["validation_2"].options) == 4  # an option without a text is none
    assert questions["validation_2"].chance == 0.25 and questions["validation_2"].task == "Art"


def test_mvbench_has_clips_frames_and_videos_of_one_name(load):
    questions, folder = load("mvbench")
    clip, count, episode = questions.values()
    assert clip.video == {"path": str(folder / "video/star/Charades_v1_480/a.mp4"), "start": 0.5, "end": 1.5}
    assert (clip.gold, clip.options) == ("B", ("A. He sat.", "B. He stood."))
    assert count.video == str(folder / "video/data0613/clevrer/video_validation/a.mp4")
    assert count.gold == "C"  # its text is "B"
    assert clip.cluster != count.cluster
    frames, metadata = load_video(episode.video, num_frames=4)
    assert metadata.fps == 3.0 and metadata.total_num_frames == 9  # seconds 1 to 4 of pictures at 3 a second
    assert len(frames) == 4


def test_mvbench_clips_that_were_cut_are_not_cut_again(load, tmp_path):
    segment = tmp_path / "star" / "Charades_segment"
    segment.mkdir(parents=True)
    (segment / "a.mp4").touch()
    questions, _ = load("mvbench", media_root=tmp_path, configs=["action_sequence"])
    assert questions["action_sequence/0"].video == str(segment / "a.mp4")


def test_tempcompass_options_come_out_of_the_questions(load):
    questions, folder = load("tempcompass")
    way, up, caption, option = questions.values()
    assert (way.problem, way.options, way.gold) == ("Which way does it go?", ("A. up", "B. down", "C. left"), "C")
    assert (up.options, up.gold, up.chance) == (("A. yes", "B. no"), "B", 0.5)
    assert (caption.options, caption.gold) == (("A. It goes left.", "B. It goes right."), "A")
    assert (option.options, option.gold) == (("A. It is slow.", "B. It is fast."), "B")
    assert option.groups == {"dimension": "speed"} and option.video == str(folder / "videos" / "7.mp4")


def test_videomme_finds_other_suffixes_and_names_missing_files(load):
    questions, folder = load("videomme")
    assert questions["001-1"].video == str(folder / "data" / "a-_x.MP4")
    assert questions["002-1"].video == str(folder / "data" / "b.mp4")  # missing: the run says so
    assert questions["001-1"].groups == {"duration": "short", "domain": "Knowledge"}


def test_video_holmes_has_six_options_and_several_questions_a_video(load):
    questions, folder = load("video-holmes")
    assert list(questions) == ["x1/1", "x1/2"]
    assert questions["x1/1"].options[5] == "F. reason F" and questions["x1/1"].gold == "F"
    assert questions["x1/2"].video == str(folder / "videos" / "x1.mp4") and questions["x1/2"].task == "TCI"


def test_the_seven_benchmarks_name_their_hub_datasets_and_parts():
    assert {name: BENCHMARKS[name].hub_id for name in list(BENCHMARKS)[:7]} == {
        "vsibench": "nyu-visionx/VSI-Bench",
        "videommmu": "lmms-lab/VideoMMMU",
        "mmvu": "yale-nlp/MMVU",
        "mvbench": "OpenGVLab/MVBench",
        "tempcompass": "lmms-lab/TempCompass",
        "videomme": "lmms-lab/Video-MME",
        "video-holmes": "TencentARC/Video-Holmes",
    }
    assert len(BENCHMARKS["mvbench"].configs) == 20


def test_what_cannot_be_asked_is_refused_with_its_row(load, tmp_path):
    with pytest.raises(ValueError, match=r"benchmark \('mmbench'\) must be one of vsibench, "):
        load_benchmark("mmbench", tmp_path)
    with pytest.raises(ValueError, match="media_root is needed: unpack the archives of videos of yale-nlp/MMVU"):
        load_benchmark("mmvu")
    with pytest.raises(ValueError, match="vsibench has no part 'half'. Its parts: full, debiased, pruned"):
        load("vsibench", configs=["half"])
    with pytest.raises(ValueError, match=r"media_root \(nowhere\) is not a folder"):
        load("vsibench", media_root="nowhere")
    folder = benchmark_files.make("video-holmes", tmp_path / "holmes")
    path = folder / "test_Video-Holmes.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([rows[0], {**rows[1], "Question ID": 1}]))
    with pytest.raises(ValueError, match="video-holmes: 2 questions have the key 'x1/1'"):
        load_benchmark("video-holmes", source=folder)
    path.write_text(json.dumps([rows[0], {**rows[1], "Answer": "G"}]))
    with pytest.raises(ValueError, match="video-holmes, default, row 1: the answer 'G' is the letter of none"):
        load_benchmark("video-holmes", source=folder)
    path.write_text(json.dumps([{name: value for name, value in rows[0].items() if name != "Options"}]))
    with pytest.raises(ValueError, match="row 0: no field 'Options'. Its fields: video ID, Question ID"):
        load_benchmark("video-holmes", source=folder)


def test_records_of_video_r1_are_questions(tmp_path):
    record = {"problem_id": 7, "problem": "How large?", "data_type": "video", "path": "a.mp4", "options": []}
    record |= {"problem_type": "regression", "solution": "<answer>20.5</answer>", "data_source": "VSI-Bench"}
    records = [
        {**record, "original_question_type": "room_size_estimation"},
        {**record, "problem_type": "multiple choice", "options": ["A. x", "B. y"], "solution": "<answer>B</answer>"},
    ]
    path = tmp_path / "eval_vsibench.json"
    path.write_text(json.dumps(records))
    size, choice = load_record_questions(path)
    assert (size.key, size.task, size.metric, size.gold) == ("0/7", "room_size_estimation", "mra", "20.5")
    assert (choice.key, choice.task, choice.options, choice.gold) == ("1/7", "VSI-Bench", ("A. x", "B. y"), "B")
    assert size.cluster == choice.cluster == "a.mp4" and size.video == str(tmp_path / "a.mp4")


def test_the_fingerprint_follows_from_all_that_is_asked(load):
    questions = list(load("video-holmes")[0].values())
    known = questions_fingerprint(questions)
    assert known == questions_fingerprint(questions)
    for changed in ({"gold": "C"}, {"problem": "Who?"}, {"options": ("A. a",)}, {"cluster": "y"}, {"video": None}):
        assert questions_fingerprint([replace(questions[0], **changed), questions[1]]) != known
    assert questions_fingerprint(questions[::-1]) != known
    assert questions_fingerprint([replace(each, video=f"/moved{each.video}") for each in questions]) == known


def test_letters_are_put_before_options_once():
    assert lettered(["A) up", "B) down"]) == ["A) up", "B) down"]
    assert lettered(["A. up", "down"]) == ["A. A. up", "B. down"]
    with pytest.raises(ValueError, match="the answer 'side' is none of the options"):
        letter_of("side", ["up", "down"])
