"""Members of zip and tar archives, read where they lie: the same frames, one look at the directory, and named faults."""

import io
import struct
import tarfile
import zipfile

import pytest
import torch
from files import picture, write, x264
from PIL import Image
from store_server import s3

from videor1_trl import ImageError, VideoError, check_media, load_image, load_video
from videor1_trl.media import archives, stores
from videor1_trl.media.limits import Limits, metered
from videor1_trl.media.readahead import VideoStore
from videor1_trl.media.sources import opened_source


@pytest.fixture(autouse=True)
def nothing_kept():
    archives._directories.clear()


def make_zip(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def make_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def members(videos, tmp_path):
    Image.fromarray(picture(1, 32, 32)).save(tmp_path / "a.png")
    kinds = {f"clips/{name}": videos(name).read_bytes() for name in ("h264.mp4", "h264.mkv")}
    return kinds | {"a.png": (tmp_path / "a.png").read_bytes(), "b/empty.mp4": b""}


MAKERS = {
    "stored.zip": make_zip,
    "deflated.ZIP": lambda path, members: make_zip(path, members, zipfile.ZIP_DEFLATED),
    "plain.tar": make_tar,
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_member_is_its_file(tmp_path, videos, members, name):
    path = MAKERS[name](tmp_path / name, members)
    for video in ("h264.mp4", "h264.mkv"):
        for clip in ({}, {"start": 0.3, "end": 1.2}):
            frames, metadata = load_video({"path": f"{path}::clips/{video}", **clip})
            expected, known = load_video({"path": str(videos(video)), **clip})
            assert torch.equal(frames, expected) and metadata == known
    assert load_image(f"{path}::a.png").tobytes() == load_image(tmp_path / "a.png").tobytes()
    frames, _ = load_video(f"{path}::clips/h264.mp4", isolation="process")
    assert torch.equal(frames, load_video(videos("h264.mp4"))[0])


@pytest.mark.parametrize("name", MAKERS)
def test_a_missing_member_is_named(tmp_path, members, name):
    path = MAKERS[name](tmp_path / name, members)
    for member in ("clips/none.mp4", "clips", "/etc/passwd", "../a.png"):
        with pytest.raises(VideoError, match="no such member in its archive"):
            load_video(f"{path}::{member}")
    with pytest.raises(VideoError, match="no such file"):
        load_video(f"{tmp_path}/none.zip::clips/h264.mp4")


def test_the_directory_is_read_once_and_anew_when_the_archive_changes(tmp_path, members, monkeypatch):
    read, real = [], archives._of_zip
    monkeypatch.setattr(archives, "_of_zip", lambda archive: read.append(1) or real(archive))
    path = make_zip(tmp_path / "a.zip", members)
    for _ in range(3):
        load_video(f"{path}::clips/h264.mp4")
        load_image(f"{path}::a.png")
    assert len(read) == 1
    make_zip(path, {"other.png": members["a.png"]})
    load_image(f"{path}::other.png")
    assert len(read) == 2


def test_what_is_kept_in_memory_follows_the_archive(tmp_path, members):
    path, read = make_zip(tmp_path / "a.zip", members), []
    store = VideoStore(lambda source: read.append(source) or load_video(source), max_bytes=2**30)
    for _ in range(2):
        store.get(f"{path}::clips/h264.mp4")
    make_zip(path, members | {"more": b""})
    store.get(f"{path}::clips/h264.mp4")
    assert len(read) == 2


# ------------------------------------------------------------------------------------------------------ hostile and damaged


def damaged(path, change):
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    return path


def test_a_member_that_unpacks_to_more_than_it_says_is_refused(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a.mp4": bytes(2**22)}, zipfile.ZIP_DEFLATED)

    def claim(data):  # 1,000 bytes, in the central directory
        struct.pack_into("<L", data, data.rindex(b"PK\1\2") + 24, 1000)

    with pytest.raises(VideoError, match="unpacks to more than 1,000 bytes"):
        load_video(f"{damaged(path, claim)}::a.mp4")


@pytest.mark.parametrize("size", [0, 2**20 - 1, 2**20, 2**20 + 5, 2**20 + 195, 2**21 + 5])
def test_a_member_is_unpacked_to_its_last_byte(tmp_path, size):
    """Where a piece of a mebibyte is full, the decoder may hold the rest of a repetition back."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        file.writestr("zeros", bytes(size))
    with metered(Limits()), opened_source(f"{path}::zeros", VideoError) as (data, _):
        assert data.all() == bytes(size)


def test_a_member_that_has_to_be_unpacked_is_bounded(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a.mp4": bytes(2**22), "a.png": bytes(2**22)}, zipfile.ZIP_DEFLATED)
    limits = Limits(fetched_bytes=2**21, image_bytes=2**21)
    with pytest.raises(VideoError, match="4,194,304 bytes and has to be taken whole, more than 2,097,152"):
        load_video(f"{path}::a.mp4", limits=limits)
    with pytest.raises(ImageError, match="more than 2,097,152"):
        load_image(f"{path}::a.png", limits=limits)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.__setitem__(slice(len(data) - 200, None), b""), "is no zip, or damaged"),
        (lambda data: data.__setitem__(slice(0, 4), b"xxxx"), "where the member should begin there is none"),
        (lambda data: data.__setitem__(60, data[60] ^ 255), "its archive is damaged"),
        (lambda data: struct.pack_into("<H", data, data.rindex(b"PK\1\2") + 8, 1), "is encrypted"),
        (lambda data: struct.pack_into("<H", data, data.rindex(b"PK\1\2") + 10, 14), "packed by method 14"),
        (
            lambda data: struct.pack_into("<L", data, data.rindex(b"PK\5\6") + 12, 2**31),
            "is no zip, or damaged|takes more",
        ),
        (lambda data: struct.pack_into("<L", data, data.rindex(b"PK\1\2") + 42, 2**31), "there is none|no zip"),
    ],
)
def test_a_damaged_zip_is_named(tmp_path, videos, change, said):
    path = make_zip(tmp_path / "a.zip", {"a.mp4": videos("h264.mp4").read_bytes()}, zipfile.ZIP_DEFLATED)
    with pytest.raises(VideoError, match=said):
        load_video(f"{damaged(path, change)}::a.mp4")


def test_a_damaged_tar_is_named(tmp_path, videos):
    data = videos("h264.mp4").read_bytes()
    path = make_tar(tmp_path / "a.tar", {"a.mp4": data, "b.mp4": data, "c.mp4": data})
    whole = path.read_bytes()
    second = 512 + -(-len(data) // 512) * 512
    path.write_bytes(whole[:second] + b"x" * 512 + whole[second + 512 :])
    load_video(f"{path}::a.mp4")
    with pytest.raises(VideoError, match="its archive is damaged behind byte"):
        load_video(f"{path}::c.mp4")
    path.write_bytes(whole[: second + 512 + 100])
    with pytest.raises(VideoError, match="truncated"):
        load_video(f"{path}::b.mp4")
    path.write_bytes(b"nothing" * 1000)
    with pytest.raises(VideoError, match="no tar, or damaged"):
        load_video(f"{path}::b.mp4")


def test_links_in_a_tar_are_no_members(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as file:
        link = tarfile.TarInfo("a.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    with pytest.raises(VideoError, match="no such member"):
        load_video(f"{path}::a.mp4")


def test_archives_that_have_no_places_are_refused(tmp_path, members):
    for name, mode in (("a.tar.gz", "w:gz"), ("a.tgz", "w:gz")):
        path = make_tar(tmp_path / name, members, mode)
        with pytest.raises(VideoError, match="Repack it"):
            load_video(f"{path}::clips/h264.mp4")


def test_a_directory_of_too_many_members_is_refused(tmp_path, members, monkeypatch):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 3)
    for name, make in MAKERS.items():
        with pytest.raises(VideoError, match="more than 3 members"):
            load_video(f"{make(tmp_path / name, members)}::clips/h264.mp4")


# -------------------------------------------------------------------------------------------------------------- in a store


def test_a_member_of_an_archive_in_a_bucket(tmp_path, videos, members, monkeypatch):
    """Stored members are read in parts, and the directory once, however many are read."""
    monkeypatch.setattr(stores, "_systems", {})
    monkeypatch.setattr(stores, "WHOLE_BYTES", 0)
    stores._known.clear()
    options = x264(keyint=10) | {"crf": "4"}
    large = write(tmp_path / "large.mp4", frames=600, rate=10, options=options)
    members = {"large.mp4": large.read_bytes(), **members, "x": bytes(2**20)}
    limits = Limits(stores=("s3://videos",))
    with s3(monkeypatch) as bucket:
        for name in ("stored.zip", "plain.tar"):
            path = MAKERS[name](tmp_path / name, members)
            bucket.put(f"data/{name}", path.read_bytes())
            archive = f"s3://videos/data/{name}"
            load_video(f"{archive}::clips/h264.mkv", limits=limits)
            bucket.reset()
            frames, _ = load_video({"path": f"{archive}::large.mp4", "start": 30.0, "end": 34.0}, limits=limits)
            assert torch.equal(frames, load_video({"path": str(large), "start": 30.0, "end": 34.0})[0])
            assert bucket.sent < large.stat().st_size / 3
            with pytest.raises(VideoError, match="no such member"):
                load_video(f"{archive}::none.mp4", limits=limits)
        bucket.put("deflated.zip", MAKERS["deflated.ZIP"](tmp_path / "deflated.zip", members).read_bytes())
        frames, _ = load_video("s3://videos/deflated.zip::clips/h264.mp4", limits=limits)
        assert torch.equal(frames, load_video(videos("h264.mp4"))[0])
        assert load_image("s3://videos/deflated.zip::a.png", limits=limits).size == (32, 32)


def test_media_check_counts_missing_members(tmp_path, members):
    import datasets

    path = make_zip(tmp_path / "a.zip", members)
    rows = [f"{path}::clips/h264.mp4", f"{path}::none.mp4", f"{path}::b/empty.mp4"]
    _, report = check_media(datasets.Dataset.from_dict({"video": rows}))
    assert report.missing == rows[1:2] and list(report.unreadable) == rows[2:]
