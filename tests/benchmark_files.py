"""Small copies of seven benchmarks' datasets, of the layout that their Hub repositories have, with videos."""

import json
from pathlib import Path

import datasets
import tiny
from PIL import Image


def parquet(folder, config, split, rows):
    """One part as a parquet file; the card names it."""
    path = folder / config / f"{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows).to_parquet(path)


def card(folder, configs, split, form="parquet"):
    """The README.md with which the Hub, and `load_dataset` of a folder, know a dataset's parts."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["---", "configs:"]
    for config in configs:
        pattern = f"{config}/*.parquet" if form == "parquet" else f"json/{config}.json"
        lines += [f"- config_name: {config}", "  data_files:", f"  - split: {split}", f"    path: {pattern}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def video(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    tiny.write_mp4(path, tiny.colour_frames(seed, count=8))


def vsibench(folder):
    rows = [
        ("object_rel_direction_easy", "Is it left or right?", ["A. left", "B. right"], "B"),
        ("object_rel_direction_hard", "Where is it?", ["A. front", "B. back", "C. left", "D. right"], "A"),
        ("route_planning", "Turn where?", ["A. left", "B. right"], "A"),
        ("object_counting", "How many chairs?", None, "4"),
        ("room_size_estimation", "How large is it?", None, "20.5"),
    ]
    table = [
        {
            "id": number,
            "dataset": ("arkitscenes", "scannet")[number % 2],
            "scene_name": f"scene{number // 3:04}_00",
            "question_type": kind,
            "question": text,
            "ground_truth": gold,
            "options": options,
        }
        for number, (kind, text, options, gold) in enumerate(rows)
    ]
    card(folder, ("full", "debiased"), "test")
    parquet(folder, "full", "test", table)
    parquet(folder, "debiased", "test", table[:2])
    for row in table:
        video(folder / row["dataset"] / f"{row['scene_name']}.mp4")


def videommmu(folder):
    card(folder, ("Perception", "Comprehension", "Adaptation"), "test")
    row = {"question": "What is drawn?", "options": ["a line", "a cube"], "question_type": "multiple-choice"}
    parquet(folder, "Perception", "test", [{"id": "dev_Art_Theory_1", "answer": "B", **row}])
    parquet(folder, "Comprehension", "test", [{"id": "validation_Math_3", "answer": "A", **row}])
    picture = Image.new("RGB", (8, 8))
    adapted = [
        {"id": "validation_Math_4", **row, "question_type": "open", "options": [], "answer": "0.5", "image": picture},
        {"id": "validation_Music_5", **row, "answer": "B", "image": picture},
    ]
    features = datasets.Features(
        {
            **{name: datasets.Value("string") for name in ("id", "question", "question_type", "answer")},
            "options": datasets.List(datasets.Value("string")),
            "image": datasets.Image(),
        }
    )
    path = folder / "Adaptation" / "test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    datasets.Dataset.from_list(adapted, features=features).to_parquet(path)
    for name in ("Art/dev_Art_Theory_1", "Science/validation_Math_3", "Science/validation_Math_4"):
        video(folder / f"{name}.mp4")
    video(folder / "Art" / "validation_Music_5.mp4")


def mmvu(folder):
    folder.mkdir(parents=True)
    url = "https://huggingface.co/datasets/yale-nlp/MMVU/resolve/main/videos"
    choices = {"A": "one", "B": "two", "C": "three", "D": "four", "E": "five"}
    rows = [
        {"id": "validation_0", "video": f"{url}/Art/0.mp4", "question_type": "multiple-choice", "answer": "E"},
        {"id": "validation_1", "video": f"{url}/Chemistry/1.mp4", "question_type": "open-ended", "answer": "salt"},
        {"id": "validation_2", "video": "videos/Art/0.mp4", "question_type": "multiple-choice", "answer": "A"},
    ]
    empty = dict.fromkeys(choices, "")
    for row in rows:
        row |= {"question": "How many?", "metadata": {"subject": "Art"}}
        row["choices"] = empty if row["question_type"] == "open-ended" else choices
    rows[2]["choices"] = {**choices, "E": ""}
    (folder / "validation.json").write_text(json.dumps(rows))
    video(folder / "videos" / "Art" / "0.mp4")


def mvbench(folder):
    card(folder, ("action_sequence", "moving_count", "episodic_reasoning"), "train", "json")
    (folder / "json").mkdir()
    tables = {
        "action_sequence": [
            {"video": "a.mp4", "candidates": ["He sat.", "He stood."], "answer": "He stood.", "start": 0.5, "end": 1.5}
        ],
        "moving_count": [{"video": "a.mp4", "candidates": ["2", "1", "B"], "answer": "B"}],
        "episodic_reasoning": [
            {"video": "clip_00", "candidates": ["yes", "no"], "answer": "no", "start": 1.0, "end": 4.0}
        ],
    }
    for config, rows in tables.items():
        rows = [{"question": "What happens?", **row} for row in rows]
        (folder / "json" / f"{config}.json").write_text(json.dumps(rows))
    video(folder / "video" / "star/Charades_v1_480" / "a.mp4", 1)
    video(folder / "video" / "data0613" / "clevrer/video_validation" / "a.mp4", 2)
    frames = folder / "video" / "tvqa/frames_fps3_hq" / "clip_00"
    frames.mkdir(parents=True)
    for number, colour in enumerate(tiny.colour_frames(5, count=15), start=1):
        Image.fromarray(colour).save(frames / f"{number:05}.jpg")


def tempcompass(folder):
    card(folder, ("multi-choice", "yes_no", "caption_matching", "captioning"), "test")
    shared = {"video_id": "1034", "dim": "direction"}
    parquet(
        folder,
        "multi-choice",
        "test",
        [
            {
                **shared,
                "question": "Which way does it go?\nA. up\nB. down\nC. left",
                "answer": "C. left",
            }
        ],
    )
    parquet(folder, "yes_no", "test", [{**shared, "question": "Does it go up?", "answer": "no"}])
    caption = "Which caption matches the video better?\nCaption A: It goes left.\nCaption B: It goes right."
    option = "Which one is true?\nOption 1: It is slow.\nOption 2: It is fast."
    parquet(
        folder,
        "caption_matching",
        "test",
        [
            {**shared, "question": caption, "answer": "Caption A: It goes left."},
            {"video_id": "7", "dim": "speed", "question": option, "answer": "Option 2: It is fast."},
        ],
    )
    for name in ("1034", "7"):
        video(folder / "videos" / f"{name}.mp4")


def videomme(folder):
    card(folder, ("videomme",), "test")
    row = {"video_id": "001", "domain": "Knowledge", "sub_category": "Law", "task_type": "Counting Problem"}
    row |= {"options": ["A. 1.", "B. 2.", "C. 3.", "D. 4."], "question": "How many?"}
    rows = [
        {**row, "videoID": "a-_x", "question_id": "001-1", "duration": "short", "answer": "C"},
        {**row, "videoID": "b", "question_id": "002-1", "duration": "long", "answer": "A"},
    ]
    parquet(folder, "videomme", "test", rows)
    video(folder / "data" / "a-_x.mp4")
    (folder / "data" / "a-_x.mp4").rename(folder / "data" / "a-_x.MP4")


def video_holmes(folder):
    folder.mkdir(parents=True)
    options = {letter: f"reason {letter}" for letter in "ABCDEF"}
    rows = [
        {
            "video ID": "x1",
            "Question ID": 1,
            "Question Type": "SR",
            "Question": "Why?",
            "Options": options,
            "Answer": "F",
        },
        {
            "video ID": "x1",
            "Question ID": 2,
            "Question Type": "TCI",
            "Question": "How?",
            "Options": options,
            "Answer": "B",
        },
    ]
    (folder / "test_Video-Holmes.json").write_text(json.dumps(rows))
    (folder / "train_Video-Holmes.json").write_text(json.dumps(rows[:1]))
    video(folder / "videos" / "x1.mp4")


MAKERS = {
    "vsibench": vsibench,
    "videommmu": videommmu,
    "mmvu": mmvu,
    "mvbench": mvbench,
    "tempcompass": tempcompass,
    "videomme": videomme,
    "video-holmes": video_holmes,
}
CONFIGS = {"mvbench": ["action_sequence", "moving_count", "episodic_reasoning"]}  # a copy has only these


def make(name, folder) -> Path:
    MAKERS[name](Path(folder))
    return Path(folder)
