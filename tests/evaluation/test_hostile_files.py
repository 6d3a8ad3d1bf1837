"""Files that are not as their benchmark's: each fault is named with its row and field, and nothing is left out unsaid."""

import json
import logging
import re

import benchmark_files
import datasets
import further_benchmark_files
import pytest

from videor1_trl.evaluation.benchmarks import BENCHMARKS, load_benchmark


def read(path):
    lines = path.suffix == ".jsonl"
    return list(map(json.loads, path.read_text().splitlines())) if lines else json.loads(path.read_text())


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)) if path.suffix == ".jsonl" else json.dumps(rows))


@pytest.fixture
def holmes(tmp_path):
    path = benchmark_files.make("video-holmes", tmp_path / "holmes") / "test_Video-Holmes.json"
    return path, read(path)


@pytest.mark.parametrize(
    "content, said",
    [
        ("", r"test_Video-Holmes\.json cannot be read as rows: it is empty\. Download it again"),
        ("[]", r"test_Video-Holmes\.json holds no rows\."),
        ("[{", r"test_Video-Holmes\.json cannot be read as rows: \w.*[.] Download it again"),
    ],
)
def test_files_without_rows_are_named(holmes, content, said):
    path, _ = holmes
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"^video-holmes: {re.escape(str(path.parent))}, {said}"):
        load_benchmark("video-holmes", source=path.parent)


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"Question": None}, "its field 'Question' is empty"),
        ({"Question Type": " "}, "its field 'Question Type' is empty"),
        ({"video ID": None}, "its field 'video ID' is empty"),
        ({"Answer": 3}, "a field is of another type than in the official files .*, Answer .int.[.]"),
        ({"Options": "A. x"}, "the options 'A. x' are no list of texts"),
        ({"Options": {"A": "x"}}, "there are 1 options, of which 2 to 26 can be asked"),
        ({"Options": {"A": "x", "B": 2}}, "the option 2 of .'x', 2. is no text"),
    ],
)
def test_rows_that_lack_something_are_named_or_dropped(holmes, changed, said):
    path, rows = holmes
    write(path, [rows[0], {**rows[1], **changed}])
    with pytest.raises(ValueError, match=f"^video-holmes, default, row 1: {said}"):
        load_benchmark("video-holmes", source=path.parent)
    dropped = []
    questions = load_benchmark("video-holmes", source=path.parent, on_bad_record="drop", dropped=dropped)
    assert [question.key for question in questions] == ["x1/1"] and len(dropped) == 1


@pytest.mark.parametrize(
    "name, row, said",
    [
        ("vsibench", {"ground_truth": "B"}, "the ground_truth 'B' of object_counting is no number"),
        ("vsibench", {"question_type": "smell"}, "the question_type 'smell' is of none of the tasks obj_appear"),
        ("vsibench", {"question_type": "route_planning"}, "route_planning with the options None is neither"),
        ("vsibench", {"options": ["A. 1", "B. 2"]}, "a question of object_counting with the options .* is neither"),
        ("mmvu", {"question_type": "multiple choice"}, "'multiple choice' is neither 'multiple-choice' nor 'open-en"),
        ("mmvu", {"video": "1.mp4"}, "the video '1.mp4' lies in no folder of a subject"),
        ("videommmu", {"options": "['a', "}, r"the options \"\['a', \" are no list"),
        ("videommmu", {"options": []}, r"of the type 'multiple-choice' with the options \[\] is neither a choice nor"),
        ("videommmu", {"question_type": "open"}, "of the type 'open' with the options .* is neither a choice nor open"),
        ("mvbench", {"start": 1.0}, r"start \(1.0\) and end \(None\) bound no clip"),
        ("mvbench", {"start": 2.0, "end": 2.0}, r"start \(2.0\) and end \(2.0\) bound no clip"),
        ("mvbench", {"candidates": "['a', 'b']"}, r"the options \"\['a', 'b'\]\" are no list of texts"),
        ("tempcompass", {"question": "Which?\nA. up\nC. down"}, r"not labelled A, B, ... or 1, 2, ...: \['A. up', 'C. d"),
        ("tempcompass", {"question": "Which?\nA. up\nor\nB. down"}, "between or behind its options there are other lines"),
        ("tempcompass", {"question": "Which?\nA. up"}, "its options are not labelled A, B, ..."),
    ],
)  # fmt: skip
def test_rows_that_mean_something_else_are_refused(name, row, said, tmp_path):
    whole = {
        "vsibench": ("full", {
            "id": 1, "dataset": "d", "scene_name": "s", "question_type": "object_counting", "question": "How many?",
            "ground_truth": "4", "options": None,
        }),
        "mmvu": ("default", {
            "id": "v", "video": "videos/Art/1.mp4", "question_type": "multiple-choice", "question": "How many?",
            "choices": {"A": "x", "B": "y"}, "answer": "A",
        }),
        "videommmu": ("Perception", {
            "id": "dev_Art_1", "question": "What?", "question_type": "multiple-choice", "options": ["a", "b"], "answer": "A",
        }),
        "mvbench": ("action_sequence", {
            "video": "a.mp4", "question": "What?", "candidates": ["a", "b"], "answer": "a", "start": None, "end": None,
        }),
        "tempcompass": ("multi-choice", {
            "video_id": "1", "dim": "speed", "question": "Which?\nA. up\nB. down", "answer": "A. up",
        }),
    }  # fmt: skip
    config, given = whole[name]
    assert BENCHMARKS[name].question(given, config, 0, tmp_path).gold  # as it should be
    with pytest.raises(ValueError, match=said):
        BENCHMARKS[name].question({**given, **row}, config, 0, tmp_path)


def test_a_part_of_a_video_is_not_asked_on_the_whole(tmp_path):
    """action_sequence asks about a clip of the original video, which its bounds cut out; the Hub's own clips need none."""
    row = {"video": "a.mp4", "question": "What?", "candidates": ["a", "b"], "answer": "a"}
    ask = BENCHMARKS["mvbench"].question
    for folder in ("star/Charades_segment", "star/Charades_v1_480"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "star/Charades_segment/a.mp4").touch()
    assert ask(row, "action_sequence", 0, tmp_path).video == str(tmp_path / "star/Charades_segment/a.mp4")
    (tmp_path / "star/Charades_v1_480/a.mp4").touch()
    with pytest.raises(ValueError, match="start and end are missing, of which .*Charades_v1_480/a.mp4 is asked"):
        ask(row, "action_sequence", 0, tmp_path)


def test_mvbenchs_clips_are_found_under_the_names_of_the_originals(tmp_path):
    (tmp_path / "ssv2_video_mp4").mkdir()
    (tmp_path / "ssv2_video_mp4/7.mp4").touch()
    row = {"video": "7.webm", "question": "What?", "candidates": ["a", "b"], "answer": "a"}
    assert BENCHMARKS["mvbench"].question(row, "action_antonym", 0, tmp_path).video.endswith("ssv2_video_mp4/7.mp4")


def test_what_a_benchmark_does_not_ask_is_counted_and_said(tmp_path, caplog):
    folder = further_benchmark_files.make("motionbench", tmp_path / "motion")
    not_asked = {}
    with caplog.at_level(logging.WARNING):
        load_benchmark("motionbench", source=folder, not_asked=not_asked)
    assert not_asked == {"its key is kept back": 1, "its text holds no two options": 1}
    assert "motionbench: asked: 1; not asked: 2 (1: its key is kept back; 1: its text holds" in caplog.text
    not_asked = {}
    load_benchmark("mmvu", source=benchmark_files.make("mmvu", tmp_path / "mmvu"), not_asked=not_asked)
    assert not_asked == {"open-ended, which needs a model as judge (--judge_model)": 1}


def test_a_right_option_that_stands_twice_is_said(holmes, caplog):
    path, rows = holmes
    write(path, [rows[0], {**rows[1], "Options": {"A": "one", "B": "two", "C": "Two"}}])
    with caplog.at_level(logging.WARNING):
        load_benchmark("video-holmes", source=path.parent)
    assert "1 of 2 questions have their right option twice, and count one of both (the first is x1/2)" in caplog.text


def test_dybenchs_answers_are_letters_or_texts_and_never_both(tmp_path):
    row = {"pair_id": 1, "video": "a.mp4", "question": "How many?"}

    def gold(answer, options):
        given = {**row, "answer": answer, "options": options}
        return BENCHMARKS["dybench"].question(given, "event_sequence", 0, tmp_path).gold

    assert [gold("B", ["up", "down"]), gold("down", ["up", "down"]), gold("1", ["2", "1"])] == ["B", "B", "B"]
    assert gold("(b)", {"A": "up", "B": "down"}) == "B"
    with pytest.raises(ValueError, match="the answer 'A' is the letter of one option and the text of another"):
        gold("A", ["B", "A"])
    with pytest.raises(ValueError, match="the answer 'C' is none of the options"):
        gold("C", ["up", "down"])
    with pytest.raises(ValueError, match="event_sequence has 2 options, not 3"):
        gold("C", ["up", "down", "left"])


def test_the_end_of_videommmus_lectures_is_spoken_of_as_its_official_prompts_do(tmp_path):
    row = {"id": "dev_Art_1", "question": "What?", "question_type": "open", "options": None, "answer": "1"}
    ask = BENCHMARKS["videommmu"].question
    problems = {track: ask(row, track, 0, tmp_path).problem for track in BENCHMARKS["videommmu"].configs}
    assert "is what the video shows last" in problems["Adaptation"]
    assert (
        problems["Perception"] == problems["Comprehension"] and "quiz that the video shows" in problems["Perception"]
    )


def test_mmvus_mirror_has_its_videos_under_another_name(tmp_path):
    row = {"id": "v", "video_path": "videos/Art/1.mp4", "question_type": "multiple-choice", "question": "How many?"}
    question = BENCHMARKS["mmvu"].question({**row, "choices": {"A": "x", "B": "y"}, "answer": "A"}, "", 0, tmp_path)
    assert (question.video, question.task) == (str(tmp_path / "videos/Art/1.mp4"), "Art")


def test_duplicates_of_a_key_are_refused(tmp_path):
    folder = benchmark_files.make("vsibench", tmp_path / "vsi")
    path = folder / "full" / "test-00000-of-00001.parquet"
    rows = datasets.load_dataset("parquet", data_files=str(path), split="train").to_list()
    benchmark_files.parquet(folder, "full", "test", [*rows, rows[0]])
    with pytest.raises(ValueError, match="vsibench: 2 questions have the key 'full/0'"):
        load_benchmark("vsibench", source=folder)
