"""Tests of videor1_trl.media: the check of all files before a run, and `datasets.Video` columns left undecoded."""

import re
import threading
from collections import Counter

import av
import datasets
import numpy as np
import pytest
import tiny
from PIL import Image

from videor1_trl.media.check import MediaReport, _first_frame, check_media
from videor1_trl.media.columns import undecoded
from videor1_trl.media.video import load_video


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A folder with two good videos, a good image, and a broken file of each kind."""
    folder = tmp_path_factory.mktemp("media")
    for name in ("a.mp4", "b.mp4"):
        tiny.write_mp4(folder / name, tiny.colour_frames(0, count=6), fps=2)
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    (folder / "broken.mp4").write_bytes(b"not a video" * 100)
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:40])
    return folder


# --- check_media -------------------------------------------------------------------------------------------------


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

    def first_frame(file, limits):
        with lock:
            opened[file["path"]] += 1
        return _first_frame(file, limits)

    monkeypatch.setattr("videor1_trl.media.check._first_frame", first_frame)
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
        patch.setattr("videor1_trl.media.check._first_frame", lambda file, limits: pytest.fail("asked"))
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
    assert report.unreadable.pop(paths[0]) == "a directory"
    assert "a URL, and only local files and stores that were named" in report.unreadable.pop(paths[1])
    dataset = datasets.Dataset.from_dict({"video": [{"path": None, "start": 1.0}]})
    [fault] = check_media(dataset)[1].unreadable.items()
    assert fault[0] == "row 0, video" and "has neither path nor bytes" in fault[1]


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


# --- datasets.Video columns --------------------------------------------------------------------------------------


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


def test_each_of_several_embedded_media_in_a_cell_is_read(media):
    good, bad = [{"bytes": (media / name).read_bytes(), "path": None} for name in ("a.png", "cut.png")]
    report = check_media(datasets.Dataset.from_dict({"images": [[good, bad], [bad, good], [good, good]]}))[1]
    assert (report.checked, report.rows) == (6, [0, 1])


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
