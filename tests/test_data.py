"""Tests of videor1_trl.data: records to columns, paths that stay under the root, the media check, Video columns."""

import json
import os
import re
import threading
from collections import Counter

import av
import datasets
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from videor1_trl import data
from videor1_trl.data import MediaReport, check_media, load_video_r1, resolve_path, undecoded
from videor1_trl.video import load_video


RECORD = {
    "problem_id": 7,
    "problem": "Which colour is first?",
    "data_type": "video",
    "problem_type": "multiple choice",
    "options": ["A. red", "B. blue"],
    "solution": "<answer>A</answer>",
    "path": "./clips/x.mp4",
    "data_source": "toy",
}


def record(**changes):
    """A well-formed record with changes; a field set to ... is left out."""
    return {name: value for name, value in (RECORD | changes).items() if value is not ...}


def write(path, records):
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def write_video(path, num_frames=6, size=32):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=2)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for index in range(num_frames):
            frame = np.full((size, size, 3), 30 * index, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A folder with two good videos, a good image, and a broken file of each kind."""
    folder = tmp_path_factory.mktemp("media")
    write_video(folder / "a.mp4")
    write_video(folder / "b.mp4")
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    (folder / "broken.mp4").write_bytes(b"not a video" * 100)
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:40])
    return folder


# --- load_video_r1


def test_json_array_becomes_the_contract_columns(tmp_path):
    records = [
        record(),
        record(data_type="image", path="i.png", problem_type="numerical", options=[], solution="<answer>3</answer>"),
        record(data_type="text", path=..., problem_type="free-form", options=None),
    ]
    dataset = load_video_r1(write(tmp_path / "r.json", records))
    assert dataset.column_names[:5] == ["prompt", "video", "image", "solution", "problem_type"]
    assert dataset["video"][:] == [str(tmp_path / "clips/x.mp4"), None, None]
    assert dataset["image"][:] == [None, str(tmp_path / "i.png"), None]
    assert dataset["solution"][:] == ["<answer>A</answer>", "<answer>3</answer>", "<answer>A</answer>"]
    (message,) = dataset[0]["prompt"]
    assert message["role"] == "user" and "Which colour" in message["content"] and "B. blue" in message["content"]
    assert dataset["options"][:] == [["A. red", "B. blue"], [], None]
    assert dataset["path"][0] == "./clips/x.mp4"


def test_jsonl_reads_as_the_array_does(tmp_path):
    records = [record(problem_id=index) for index in range(3)]
    lines = tmp_path / "r.jsonl"
    lines.write_text("\n\n".join(map(json.dumps, records)) + "\n", encoding="utf-8-sig")
    array = load_video_r1(write(tmp_path / "r.json", records))
    assert load_video_r1(lines).to_list() == array.to_list()
    assert load_video_r1(str(lines)).features == array.features


def test_several_files_resolve_paths_each_under_its_own_folder(tmp_path):
    for name in "pq":
        (tmp_path / name).mkdir()
        write(tmp_path / name / "r.json", [record(path=f"{name}.mp4")])
    dataset = load_video_r1([tmp_path / "p" / "r.json", tmp_path / "q" / "r.json"])
    assert dataset["video"][:] == [str(tmp_path / "p/p.mp4"), str(tmp_path / "q/q.mp4")]


def test_root_replaces_the_folder_of_the_file(tmp_path):
    (tmp_path / "media").mkdir()
    dataset = load_video_r1(write(tmp_path / "r.json", [record()]), root=tmp_path / "media")
    assert dataset[0]["video"] == str(tmp_path / "media/clips/x.mp4")
    with pytest.raises(ValueError, match=r"root \(/no/such\) is not a folder"):
        load_video_r1(tmp_path / "r.json", root="/no/such")


def test_unknown_fields_are_kept_and_missing_ones_are_none(tmp_path):
    records = [record(process="<think>a</think>"), record(extra={"a": [1, 2]}), record(extra={"b": "x"})]
    dataset = load_video_r1(write(tmp_path / "r.json", records))
    assert dataset["process"][:] == ["<think>a</think>", None, None]
    assert dataset["extra"][:] == [None, {"a": [1, 2], "b": None}, {"a": None, "b": "x"}]


def test_columns_without_a_value_keep_their_type(tmp_path):
    texts = [record(data_type="text", path=None, problem_type="free-form", options=[])]
    features = load_video_r1(write(tmp_path / "r.json", texts)).features
    for name in ("video", "image", "path"):
        assert features[name] == datasets.Value("string")
    assert features["options"] == datasets.List(datasets.Value("string"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problem": ...}, "field 'problem': is missing."),
        ({"problem": "  "}, "field 'problem': is empty."),
        ({"problem": 3}, "field 'problem': must be a string, not 3."),
        ({"problem_type": ...}, "field 'problem_type': is missing."),
        ({"problem_type": "riddle"}, "field 'problem_type': 'riddle' must be one of multiple choice, numerical"),
        ({"problem_type": ["OCR"]}, "field 'problem_type': must be a string, not ['OCR']."),
        ({"solution": "A"}, "field 'solution': 'A' must hold <answer>...</answer>"),
        ({"solution": "<answer> </answer>"}, "field 'solution': '<answer> </answer>' must hold"),
        ({"options": []}, "field 'options': must name the choices"),
        ({"options": ...}, "field 'options': must name the choices"),
        ({"options": "A. red"}, "field 'options': must be a list of strings, not 'A. red'."),
        ({"options": ["A", 2]}, "field 'options': must be a list of strings"),
        ({"data_type": "audio"}, "field 'data_type': 'audio' must be 'video', 'image' or 'text'."),
        ({"data_type": ...}, "field 'data_type': None must be 'video', 'image' or 'text'."),
        ({"data_type": "text"}, "field 'data_type': is 'text', yet path is './clips/x.mp4'"),
        ({"path": ...}, "field 'path': is missing."),
        ({"path": ["x.mp4"]}, "field 'path': must be a string"),
        ({"path": "../x.mp4"}, "field 'path': '../x.mp4' leaves root"),
        ({"video": "x.mp4"}, "field 'video': this name is a column of the trainer's"),
        ({"extra": "\ud800"}, "field 'extra': '\\ud800' cannot be stored"),
        ({"extra": 2**70}, "field 'extra': 1180591620717411303424 cannot be stored"),
        ({"extra": [1, "a"]}, "field 'extra': [1, 'a'] cannot be stored"),
    ],
)
def test_malformed_record_is_named_with_index_and_field(tmp_path, changes, message):
    path = write(tmp_path / "r.json", [record(), record(**changes)])
    with pytest.raises(ValueError, match=re.escape(f"{path}, record 1, {message}")):
        load_video_r1(path)


def test_record_that_is_no_object_is_named(tmp_path):
    path = write(tmp_path / "r.json", [record(), 5, None])
    with pytest.raises(
        ValueError, match=r"2 of 3 records.*\n.*record 1, must be a JSON object, not int.\n.*record 2,"
    ):
        load_video_r1(path)


def test_all_malformed_records_are_one_error_with_a_short_list(tmp_path):
    path = write(tmp_path / "r.json", [record()] + [record(problem="")] * 30)
    with pytest.raises(ValueError, match="30 of 31 records are malformed") as caught:
        load_video_r1(path, max_reported=3)
    lines = str(caught.value).splitlines()
    assert len(lines) == 6  # heading, three records, "and 27 more", remedy
    assert lines[4].strip() == "and 27 more"


def test_malformed_records_are_dropped_only_when_asked_and_logged(tmp_path, caplog):
    path = write(tmp_path / "r.json", [record(), record(problem=""), record(problem_id="seven"), record(problem_id=9)])
    dataset = load_video_r1(path, on_bad_record="drop")
    assert dataset["problem_id"][:] == [7, 9]
    assert "Dropped 2 of 4 records" in caplog.text and "record 2, field 'problem_id'" in caplog.text
    with pytest.raises(ValueError, match=re.escape("on_bad_record ('skip') must be 'raise' or 'drop'.")):
        load_video_r1(path, on_bad_record="skip")


@pytest.mark.parametrize(
    ("name", "first", "other"),
    [
        ("problem_id", 1, "one"),
        ("extra", {"a": {"b": 1}}, {"a": {"b": "x"}}),
        ("extra", ["x"], "x"),
        ("extra", True, 2),
        ("extra", 2.5, 2**60 + 1),
    ],
)
def test_type_that_differs_between_records_is_named(tmp_path, name, first, other):
    path = write(tmp_path / "r.json", [record(**{name: None}), record(**{name: first}), record(**{name: other})])
    with pytest.raises(
        ValueError, match=re.escape(f"1 of 3 records are malformed:\n  {path}, record 2, field {name!r}: ")
    ):
        load_video_r1(path)


def test_integers_and_floats_share_a_column_and_problem_ids_may_repeat(tmp_path):
    dataset = load_video_r1(write(tmp_path / "r.json", [record(fps=1), record(fps=2.5), record(fps=None)]))
    assert dataset["fps"][:] == [1.0, 2.5, None]
    assert dataset["problem_id"][:] == [7, 7, 7]


def test_json_errors_name_file_line_and_reason(tmp_path):
    lines = tmp_path / "r.jsonl"
    lines.write_text(json.dumps(record()) + '\n\n{"problem": \n')
    with pytest.raises(ValueError, match=re.escape(f"{lines}, line 3, column 13: not JSON: Expecting value")):
        load_video_r1(lines)
    array = tmp_path / "r.json"
    array.write_text('[{"a": 1},\n {"b" 2}]')
    with pytest.raises(ValueError, match=re.escape(f"{array}, line 2, column 7: not JSON: Expecting ':'")):
        load_video_r1(array)
    array.write_bytes(b'[{"a": "\xff"}]')
    with pytest.raises(ValueError, match=re.escape(f"{array} is not UTF-8")):
        load_video_r1(array)


def test_sources_that_do_not_fit_end_with_a_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.json"):
        load_video_r1(tmp_path / "none.json")
    with pytest.raises(FileNotFoundError, match="none.json"):
        load_video_r1("some/none.json")
    with pytest.raises(ValueError, match="holds no record: nothing to train on"):
        load_video_r1(write(tmp_path / "empty.json", []))
    with pytest.raises(ValueError, match="is a folder: name its files of records in data_files"):
        load_video_r1(tmp_path)
    path = write(tmp_path / "r.json", [record()])
    assert len(load_video_r1(tmp_path, data_files="r.json")) == 1
    with pytest.raises(ValueError, match=re.escape("split ('train') is for Hub datasets")):
        load_video_r1(path, split="train")
    with pytest.raises(ValueError, match="is a file already"):
        load_video_r1(path, data_files="r.json")


def test_hub_id_goes_through_load_dataset(tmp_path, monkeypatch):
    path = write(tmp_path / "Video-R1-260k.json", [record(problem_id=index) for index in range(4)])
    calls = []
    real = datasets.load_dataset

    def load_dataset(name, data_files, split):
        calls.append((name, data_files, split))
        return real("json", data_files=str(path), split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    hub = {"source": "Video-R1/Video-R1-data", "data_files": "Video-R1-260k.json"}
    assert load_video_r1(**hub, root=tmp_path).to_list() == load_video_r1(path).to_list()
    assert load_video_r1(**hub, root=tmp_path, split="train[:3]").num_rows == 3
    assert calls == [(hub["source"], [hub["data_files"]], split) for split in ("train", "train[:3]")]
    with pytest.raises(ValueError, match="field 'path': root is needed"):
        load_video_r1(**hub)
    with pytest.raises(ValueError, match="data_files is needed with the Hub dataset Video-R1/Video-R1-data"):
        load_video_r1(hub["source"])


def test_ten_thousand_records_load(tmp_path):
    dataset = load_video_r1(write(tmp_path / "r.json", [record(problem_id=index) for index in range(10_000)]))
    assert len(dataset) == 10_000 and dataset[9_999]["problem_id"] == 9_999


# --- resolve_path


@pytest.mark.parametrize("path", ["a.mp4", "./a.mp4", "x/../a.mp4", ".\\a.mp4", "x\\..\\a.mp4", "/r/s/a.mp4"])
def test_paths_under_root_are_resolved(path):
    assert resolve_path(path, "/r/s") == "/r/s/a.mp4"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../a.mp4", "leaves root"),
        ("x/../../a.mp4", "leaves root"),
        ("..\\a.mp4", "leaves root"),
        ("/etc/passwd", "leaves root"),
        ("/r/s-more/a.mp4", "leaves root"),
        ("../s-more/a.mp4", "leaves root"),
        ("\\etc\\passwd", "leaves root"),
        ("C:\\a.mp4", "names a drive"),
        ("c:a.mp4", "names a drive"),
        ("\\\\server\\share\\a.mp4", "names a drive or a network share"),
        ("https://x.org/a.mp4", "is a URL"),
        ("a\0.mp4", "null character"),
        (".", "names no file"),
        ("x/..", "names no file"),
    ],
)
def test_paths_that_leave_root_are_refused(path, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        resolve_path(path, "/r/s")


PIECES = st.sampled_from(["..", ".", "a", "s", "r", "", "~", "C:", "...", ".. ", "x.mp4"])
PATHS = (
    st.text()
    | st.lists(PIECES, min_size=1).flatmap(
        lambda parts: st.lists(st.sampled_from("/\\"), min_size=len(parts), max_size=len(parts)).map(
            lambda marks: "".join(mark + part for mark, part in zip(marks, parts, strict=True))
        )
    )
    | st.lists(PIECES, min_size=1).map("/".join)
)


@given(path=PATHS, root=st.sampled_from(["/r/s", "/", "r", "/r/../s/"]))
@example(path="a/../../s/../../r", root="/r/s")
def test_resolved_path_never_leaves_root(path, root):
    try:
        full = resolve_path(path, root)
    except ValueError:
        return
    base = os.path.abspath(root)
    assert os.path.isabs(full) and os.path.normpath(full) == full and full != base
    assert os.path.commonpath([full, base]) == base


def test_symbolic_links_of_the_users_are_followed(tmp_path, media):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "linked").symlink_to(media)
    assert resolve_path("linked/a.mp4", tmp_path / "root") == str(tmp_path / "root/linked/a.mp4")
    # ".." is worked out before the link: not media's parent folder
    assert resolve_path("linked/../a.mp4", tmp_path / "root") == str(tmp_path / "root/a.mp4")
    (tmp_path / "alias").symlink_to(tmp_path / "root")  # root itself a link, the record's path spelled without it
    assert resolve_path(str(tmp_path / "root/a.mp4"), tmp_path / "alias") == str(tmp_path / "root/a.mp4")


# --- check_media


def media_rows(media):
    return datasets.Dataset.from_dict(
        {
            "video": [
                str(media / name) if name else None for name in ("a.mp4", "none.mp4", "broken.mp4", None, "b.mp4")
            ],
            "image": [None, None, None, str(media / "a.png"), str(media / "cut.png")],
            "solution": list("abcde"),
        }
    )


@pytest.mark.parametrize("decode", ["first_frame", "sampled_frames"])
def test_media_check_reports_missing_and_unreadable_files(media, caplog, decode):
    dataset = media_rows(media)
    same, report = check_media(dataset, decode=decode, num_workers=2)
    assert same is dataset
    assert report.checked == 6 and not report.ok
    assert report.missing == [str(media / "none.mp4")]
    assert set(report.unreadable) == {str(media / "broken.mp4"), str(media / "cut.png")}
    assert all(report.unreadable.values())
    assert report.rows == [1, 2, 4]
    assert "6 files, 1 missing, 2 unreadable, 3 rows affected" in str(report)
    assert "drop=True" in caplog.text and str(media / "broken.mp4") in caplog.text


def test_media_check_drops_rows_only_when_asked_and_logs_it(media, caplog):
    dataset, report = check_media(media_rows(media), drop=True)
    assert dataset["solution"][:] == ["a", "d"] and report.rows == [1, 2, 4]
    assert "Dropped 3 of 5 rows" in caplog.text
    caplog.clear()
    again, clean = check_media(dataset, drop=True)
    assert again is dataset and clean.ok and clean.missing == [] and clean.unreadable == {} and caplog.text == ""


def test_each_distinct_file_is_opened_once(media, monkeypatch):
    opened, lock = Counter(), threading.Lock()
    real = data._first_frame

    def first_frame(source):
        with lock:
            opened[source if isinstance(source, str) else source["path"]] += 1
        return real(source)

    monkeypatch.setattr(data, "_first_frame", first_frame)
    paths = [str(media / "a.mp4"), str(media / "b.mp4")] * 150  # over several batches of rows
    assert check_media(datasets.Dataset.from_dict({"video": paths}))[1].checked == 2
    assert opened == Counter(set(paths))


def test_media_check_reads_lists_clips_and_frames(media):
    good, bad, image = str(media / "a.mp4"), str(media / "broken.mp4"), str(media / "a.png")
    clips = [[{"path": good, "start": 0.0, "end": 1.0}, {"path": bad, "start": 0.0, "end": 1.0}], [], None]
    report = check_media(datasets.Dataset.from_dict({"videos": clips}))[1]
    assert (report.checked, report.rows, list(report.unreadable)) == (2, [0], [bad])
    frames = datasets.Dataset.from_dict({"video": [[image, image], [image, str(media / "cut.png")]]})
    report = check_media(frames)[1]
    assert (report.checked, report.rows, list(report.unreadable)) == (2, [1], [str(media / "cut.png")])
    nested = datasets.Dataset.from_dict({"videos": [[[image, str(media / "gone.png")]]]})
    assert check_media(nested)[1].missing == [str(media / "gone.png")]
    with pytest.MonkeyPatch.context() as patch:  # frames are images, which no video decoder is asked for
        patch.setattr(data, "_first_frame", None)
        assert check_media(nested)[1].missing and check_media(frames)[1].rows == [1]
    images = datasets.Dataset.from_dict({"images": [[image, str(media / "cut.png")], None]})
    assert check_media(images)[1].rows == [0]
    arrays = datasets.Dataset.from_dict({"video": [np.zeros((2, 3, 2, 2), np.uint8).tolist()]})
    assert check_media(arrays)[1] == MediaReport()


def test_clip_that_starts_after_the_end_is_found_by_sampled_frames(media):
    good = str(media / "a.mp4")  # 3 seconds
    dataset = datasets.Dataset.from_dict({"video": [{"path": good, "start": s, "end": s + 1} for s in (0.0, 90.0)]})
    assert check_media(dataset)[1].ok
    assert check_media(dataset, decode="sampled_frames", max_frames=4)[1].rows == [1]


def test_folder_url_and_pathless_media_are_unreadable(media):
    paths = [str(media), "https://x.org/a.mp4"]
    report = check_media(datasets.Dataset.from_dict({"video": paths}))[1]
    assert report.unreadable == {paths[0]: "is not a file", paths[1]: "is a URL: download it first"}
    dataset = datasets.Dataset.from_dict({"video": [{"path": None, "start": 1.0}]})
    assert check_media(dataset)[1].unreadable == {"row 0, video": "has neither path nor bytes"}


def test_audio_only_file_has_no_video_stream(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    report = check_media(datasets.Dataset.from_dict({"video": [str(path)]}))[1]
    assert "no video stream" in report.unreadable[str(path)]


def test_media_check_refuses_what_it_cannot_index(media):
    dataset = media_rows(media)
    with pytest.raises(TypeError, match="takes a datasets.Dataset, not IterableDataset"):
        check_media(dataset.to_iterable_dataset())
    with pytest.raises(TypeError, match="not DatasetDict: pass one split"):
        check_media(datasets.DatasetDict(train=dataset))
    with pytest.raises(ValueError, match=re.escape("num_workers (0) must be at least 1.")):
        check_media(dataset, num_workers=0)
    with pytest.raises(ValueError, match=re.escape("decode ('all') must be 'first_frame' or 'sampled_frames'.")):
        check_media(dataset, decode="all")
    with pytest.raises(ValueError, match="fps: sampling options need decode='sampled_frames'"):
        check_media(dataset, fps=1.0)


def test_dataset_without_media_columns_has_nothing_to_check():
    dataset = datasets.Dataset.from_dict({"prompt": ["a"]})
    assert check_media(dataset) == (dataset, MediaReport())


def test_report_lists_ten_files_of_a_kind():
    lines = str(MediaReport(checked=20, missing=[f"{n}.mp4" for n in range(12)], rows=list(range(12)))).splitlines()
    assert len(lines) == 12 and lines[-1].split() == ["missing", "and", "2", "more"]


# --- datasets.Video columns


@pytest.fixture
def no_torchcodec(monkeypatch):
    """Fails the test where `datasets` decodes a video itself."""

    def decode_example(self, *args, **kwargs):
        raise AssertionError("datasets decoded a video")

    monkeypatch.setattr(datasets.Video, "decode_example", decode_example)


def video_column(media, kind):
    """A dataset whose videos are a `Video` feature, inside a list, with the bytes embedded, or streamed."""
    paths = [str(media / "a.mp4"), str(media / "b.mp4")]
    if kind == "list":
        features = datasets.Features({"videos": datasets.List(datasets.Video())})
        return datasets.Dataset.from_dict({"videos": [paths, paths[:1]]}, features=features)
    dataset = datasets.Dataset.from_dict({"video": [*paths, None]}).cast_column("video", datasets.Video())
    if kind == "bytes":
        rows = [{"bytes": (media / "a.mp4").read_bytes(), "path": None}]
        dataset = datasets.Dataset.from_dict({"video": rows}, features=dataset.features)
    return dataset.to_iterable_dataset() if kind == "stream" else dataset


@pytest.mark.parametrize("kind", ["column", "list", "bytes", "stream"])
def test_video_columns_reach_load_video_undecoded(media, no_torchcodec, kind):
    original = video_column(media, kind)
    dataset = undecoded(original)
    sources = []
    for row in dataset:
        value = row.get("video") or row.get("videos") or []
        sources += value if isinstance(value, list) else [value]
    assert len(sources) == {"column": 2, "list": 3, "bytes": 1, "stream": 2}[kind]
    expected, _ = load_video(str(media / "a.mp4"))
    assert load_video(sources[0])[0].equal(expected)
    feature = next(iter(original.features.values()))
    assert getattr(feature, "feature", feature).decode  # the dataset passed is not changed


@pytest.mark.parametrize("kind", ["column", "list", "bytes"])
@pytest.mark.parametrize("decode", ["first_frame", "sampled_frames"])
def test_media_check_reads_video_columns(media, no_torchcodec, kind, decode):
    dataset = video_column(media, kind)
    same, report = check_media(dataset, decode=decode)
    assert same is dataset and report.ok and report.checked == {"column": 2, "list": 2, "bytes": 1}[kind]


def test_media_check_names_the_row_of_embedded_bytes(no_torchcodec):
    features = datasets.Features({"video": datasets.Video()})
    rows = [{"bytes": b"rubbish", "path": "x.mp4"}, {"bytes": b"rubbish", "path": None}]
    report = check_media(datasets.Dataset.from_dict({"video": rows}, features=features))[1]
    assert list(report.unreadable) == ["row 0, video: x.mp4", "row 1, video"] and report.rows == [0, 1]


def test_media_check_does_not_decode_image_columns_itself(media):
    paths = [str(media / "a.png"), str(media / "cut.png")]
    dataset = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    kept, report = check_media(dataset, drop=True)
    assert report.rows == [1] and kept.features["image"] == datasets.Image() and len(kept) == 1


def test_undecoded_leaves_everything_else_alone(media):
    dataset = media_rows(media).cast_column("image", datasets.Image())
    assert undecoded(dataset) is dataset
    assert undecoded(None) is None
    splits = undecoded(datasets.DatasetDict(train=dataset, test=video_column(media, "column")))
    assert isinstance(splits, datasets.DatasetDict) and splits["train"] is dataset
    assert splits["test"].features["video"] == datasets.Video(decode=False)
    nested = datasets.Features({"row": {"clip": datasets.LargeList(datasets.Video())}})
    cast = undecoded(datasets.Dataset.from_dict({"row": [{"clip": [str(media / "a.mp4")]}]}, features=nested))
    assert cast[0]["row"]["clip"][0]["path"] == str(media / "a.mp4")
