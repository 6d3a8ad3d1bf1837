"""Small copies of the benchmarks of order, length, reasoning and grounding, of the layout that their files have."""

import json
from pathlib import Path

import datasets
from benchmark_files import card, parquet, video


def write(path, rows, *, lines=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows))


def splits(folder, tables):
    """One parquet file a split, whose names say which."""
    (folder / "data").mkdir(parents=True)
    for split, rows in tables.items():
        datasets.Dataset.from_list(rows).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def tvbench(folder):
    card(folder, ("action_sequence", "moving_direction"), "train", "json")
    row = {
        "video": "a.mp4",
        "question": "What is first?",
        "candidates": ["He sat.", "He stood."],
        "answer": "He stood.",
    }
    write(folder / "json" / "action_sequence.json", [{**row, "start": 0.5, "end": 1.5}])
    write(folder / "json" / "moving_direction.json", [{**row, "candidates": ["left", "right", "up"], "answer": "up"}])
    touch(folder / "video" / "action_sequence" / "a.mp4", folder / "video" / "moving_direction" / "a.mp4")


def tomato(folder):
    row = {"question": "How many?", "options": ["1", "2", "3", "4", "5", "6"], "key": "0001-1"}
    row |= {"demonstration_type": "human", "motion_type": "rotation", "variation": {"zoom": "x"}, "note": ""}
    splits(folder, {"count": [{**row, "answer": 5}], "direction": [{**row, "answer": 0, "options": ["up", "down"]}]})
    touch(folder / "videos" / "human" / "0001-1.mp4")


def aotbench(folder):
    side = {"video_name": "v1.mp4", "question_type": "order", "ans": "B"}
    text = "Which half is played forward?\nA. the first\nB. the second\nAnswer with the letter."
    write(folder / "data_files/input/ReverseFilm.json", [{**side, "qa_idx": 0, "question": text}])
    asked = "What does he do? (A) sits down (B) stands up (C) both"
    write(folder / "data_files/input/AoTBench_QA.json", [{**side, "qa_idx": 7, "question": asked, "ans": "(C)"}])
    touch(folder / "videos" / "v1.mp4")


def dybench(folder):
    row = {"question": "Which way?", "candidates": ["left", "right", "up", "down"], "pair_id": 3}
    rows = [{**row, "video": "a.mp4", "answer": "left"}, {**row, "video": "b.mp4", "answer": "right"}]
    write(folder / "json" / "moving_direction.json", rows)
    touch(folder / "videos" / "moving_direction" / "a.mp4")


def timeblind(folder):
    asked = ("Does it open first? Please output Yes or No.", "When does it open?\nA. first\nB. last")
    rows = []
    for index in range(8):
        place = index % 4
        rows.append(
            {
                "index": index,
                "video_path": f"videos/{index // 4}_{place % 2}.mp4",
                "question": asked[place // 2],
                "answer": (("yes", "no"), ("B", "A"))[place // 2][place % 2],
                "type": ("yes_no", "multiple_choice")[place // 2],
            }
        )
    write(folder / "data.jsonl", rows, lines=True)
    for name in ("0_0", "0_1", "1_0", "1_1"):
        video(folder / "videos" / f"{name}.mp4", int(name[0]) + int(name[2]))


def vinoground(folder):
    caption = (
        "Which caption is it?\nA. He sits, then stands.\nB. He stands, then sits.\nAnswer with the option's letter."
    )
    clip = "Which segment matches?\nA. The first\nB. The second\nAnswer with the option's letter."
    for kind, text, where in (("text", caption, "vinoground_videos"), ("video", clip, "vinoground_videos_concated")):
        rows = [
            {"idx": f"{pair}_{side}", "video_name": f"{where}/{pair}_{side}.mp4", "question": text, "GT": gold}
            for pair in range(2)
            for side, gold in (("pos", "A"), ("neg", "B"))
        ]
        write(folder / f"vinoground_{kind}score.json", rows)
    touch(folder / "vinoground_videos" / "0_pos.mp4")


def motionbench(folder):
    row = {"key": "k1", "video_path": "k1.mp4", "question_type": "Camera Motion", "video_type": "film"}
    text = "Where does it turn?\nA. left\nB. right\nC. up"
    qa = [
        {"uid": "u1", "question": text, "answer": "C"},
        {"uid": "u2", "question": text, "answer": "NA"},
        {"uid": "u3", "question": "Where?\nA. left", "answer": "A"},
    ]
    write(folder / "video_info.meta.jsonl", [{**row, "qa": qa}], lines=True)
    touch(folder / "public-dataset" / "k1.mp4")


def longvideobench(folder):
    row = {"video_path": "x.mp4", "question": "What follows?", "duration_group": 600, "question_category": "T2E"}
    row |= {"option0": "a door", "option1": "a car", "option2": "a dog", "option3": "N/A", "option4": "N/A"}
    write(folder / "lvb_val.json", [{**row, "id": "x_0", "correct_choice": 2, "subtitle_path": "x_en.json"}])
    touch(folder / "videos" / "x.mp4")


def mlvu(folder):
    row = {"video": "a.mp4", "duration": 300.0, "candidates": ["red", "blue"], "question": "Which?", "answer": "blue"}
    write(folder / "json" / "4_count.json", [row, {**row, "answer": "red"}])
    write(folder / "json" / "5_order.json", [row])
    touch(folder / "MLVU" / "video" / "4_count" / "a.mp4")


def mlvu_test(folder):
    card(folder, ("default",), "test")
    text = "Which one?\n(A) a\n(B) b\n(C) c\n(D) d\n(E) e\n(F) f"
    row = {"video_name": "t_1.mp4", "question": text, "task_type": "sportsQA"}
    parquet(folder, "default", "test", [{**row, "answer": "F"}, {**row, "answer": "(A)"}])
    touch(folder / "t_1.mp4")


def lvbench(folder):
    qa = {
        "uid": "12",
        "question": "Who?\n(A) he\n(B) she\n(C) they\n(D) it",
        "answer": "D",
        "time_reference": "00:01-00:02",
    }
    types = ["entity recognition", "reasoning"]
    row = {"key": "Cm73ma6Ibcs", "type": "cartoon", "video_info": {"duration_minutes": 60}}
    write(folder / "video_info.meta.jsonl", [{**row, "qa": [{**qa, "question_type": types}]}], lines=True)
    touch(folder / "Cm73ma6Ibcs.mkv")


def videomathqa(folder):
    card(folder, ("mcq", "multi_binary"), "test")
    row = {"videoID": "v", "question": "What area?", "category": "Geometry Area", "length": "short", "steps": "x"}
    options = ["A. 1", "B. 2", "C. 3", "D. 4", "E. 5"]
    parquet(folder, "mcq", "test", [{**row, "question_id": "9", "options": options, "answer": "E"}])
    binary = [{**row, "question_id": "9", "options": ["A. 5", f"B. {wrong}"], "answer": "A"} for wrong in range(1, 5)]
    parquet(folder, "multi_binary", "test", binary)
    touch(folder / "videos" / "v.MP4")


def minerva(folder):
    row = {
        "key": "k:0",
        "video_id": "y1",
        "question": "Why?",
        "answer_id": 4,
        "answer": "e",
        "question_type": "Causal",
    }
    row |= {f"answer_choice_{place}": "abcde"[place] for place in range(5)} | {"split": "short", "category": "film"}
    write(folder / "minerva.json", [row])
    touch(folder / "y1.webm")


def charades_sta(folder):
    card(folder, ("default",), "test")
    row = {"video": "3MSZA.mp4", "caption": "person turns a light on.", "timestamp": [24.3, 30.4]}
    parquet(folder, "default", "test", [row, {**row, "timestamp": [0.0, 6.0]}])
    touch(folder / "Charades_v1_480" / "3MSZA.mp4")


def timelens_bench(folder):
    row = {"video_path": "a.mp4", "query": "a man sits down", "span": [[5.0, 9.0]]}
    splits(folder, {"charades": [row], "qvhighlights": [{**row, "span": [[1.0, 2.5]]}]})
    touch(folder / "videos" / "a.mp4")


MAKERS = {
    function.__name__.replace("_", "-"): function
    for function in (
        *(tvbench, tomato, aotbench, dybench, timeblind, vinoground, motionbench),
        *(longvideobench, mlvu, mlvu_test, lvbench, videomathqa, minerva, charades_sta, timelens_bench),
    )
}
CONFIGS = {  # a copy has only these
    "tvbench": ["action_sequence", "moving_direction"],
    "tomato": ["count", "direction"],
    "aotbench": ["ReverseFilm", "AoTBench_QA"],
    "dybench": ["moving_direction"],
    "mlvu": ["4_count", "5_order"],
    "timelens-bench": ["charades", "qvhighlights"],
}


def make(name, folder) -> Path:
    MAKERS[name](Path(folder))
    return Path(folder)
