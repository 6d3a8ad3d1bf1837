"""Videos read where they lie in stores: moto's S3 and an HTTP server of files on this machine, whole, in parts, and with faults."""

import multiprocessing
import time

import fsspec
import pytest
import torch
from files import KINDS, picture, remux, write, x264
from PIL import Image
from store_server import Server, files_of, s3

from videor1_trl import ImageError, VideoError, check_media, load_image, load_video
from videor1_trl.media import far, stores
from videor1_trl.media.limits import Limits


EXACT = [
    "h264.mp4",
    "h264_one_key.mp4",
    "h264_open_gop.mp4",
    "h264_intra_refresh.mp4",
    "h264_faststart.mp4",
    "hevc.mp4",
]


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setattr(stores, "_systems", {})
    monkeypatch.setattr(stores, "PAUSE_SECONDS", 0.01)
    stores._known.clear()
    with s3(monkeypatch) as server:
        yield server


@pytest.fixture
def web(tmp_path, monkeypatch):
    """An HTTP server of the files in `web.folder`."""
    monkeypatch.setattr(stores, "_systems", {})
    monkeypatch.setattr(stores, "PAUSE_SECONDS", 0.01)
    stores._known.clear()
    (tmp_path / "served").mkdir()
    server = Server(files_of(tmp_path / "served"))
    server.folder = tmp_path / "served"
    yield server
    server.close()


@pytest.fixture
def in_parts(monkeypatch):
    """Even small files are fetched in parts."""
    monkeypatch.setattr(stores, "WHOLE_BYTES", 0)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """100 s of noise-like pictures, a key frame every second."""
    options = x264(keyint=10, bframes=2) | {"crf": "4"}
    return write(tmp_path_factory.mktemp("large") / "large.mp4", frames=1000, size=(96, 64), rate=10, options=options)


def in_bucket(**options):
    return Limits(stores=("s3://videos",), **options)


def test_a_video_of_a_bucket_is_that_of_its_file(bucket, videos):
    path = videos("h264.mp4")
    bucket.put("clips/a b.mp4", path.read_bytes())
    frames, metadata = load_video("s3://videos/clips/a b.mp4", limits=in_bucket())
    expected, known = load_video(path)
    assert torch.equal(frames, expected) and metadata == known
    reads = [each for each in bucket.asked if each[0] == "GET"]
    assert len(reads) == 1 and bucket.sent >= path.stat().st_size  # small: all of it at once


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_video_comes_out_the_same_in_parts(web, in_parts, videos, kind):
    (web.folder / kind).write_bytes(videos(kind).read_bytes())
    for clip in ({}, {"start": 0.4, "end": 1.3}):
        expected, known = load_video({"path": str(videos(kind)), **clip}, max_frames=6)
        frames, metadata = load_video(
            {"path": f"{web.url}/{kind}", **clip}, max_frames=6, limits=Limits(stores=(web.url,))
        )
        assert torch.equal(frames, expected) and metadata == known


@pytest.mark.parametrize("kind", EXACT)
def test_the_frames_of_an_mp4_are_numbered_without_its_samples(web, in_parts, videos, kind, monkeypatch):
    (web.folder / kind).write_bytes(videos(kind).read_bytes())
    monkeypatch.setattr(far, "read_frames", lambda *args, **kwargs: pytest.fail("it was fetched whole"))
    if kind == "h264_intra_refresh.mp4":
        return  # a gradual refresh is decoded in full
    load_video(f"{web.url}/{kind}", max_frames=6, limits=Limits(stores=(web.url,)))


def test_a_clip_of_a_large_file_does_not_fetch_the_whole(bucket, large, monkeypatch):
    monkeypatch.setattr(stores, "WHOLE_BYTES", 2**16)
    bucket.put("large.mp4", large.read_bytes())
    bucket.reset()
    source = {"path": "s3://videos/large.mp4", "start": 40.0, "end": 48.0}
    frames, metadata = load_video(source, limits=in_bucket())
    expected, known = load_video({**source, "path": str(large)})
    assert torch.equal(frames, expected) and metadata == known and len(frames) == 16
    assert bucket.sent < large.stat().st_size / 5
    assert len(bucket.asked) < 25


def test_a_truncated_video_is_one_in_a_store_too(web, in_parts, large):
    data = large.read_bytes()
    front = remux(large, web.folder / "front.mp4", options={"movflags": "faststart"}).read_bytes()
    (web.folder / "front.mp4").write_bytes(front[: len(front) * 2 // 3])
    (web.folder / "back.mp4").write_bytes(data[: len(data) // 2])
    for name, said in (("front.mp4", "truncated"), ("back.mp4", "cannot be read")):
        with pytest.raises(VideoError, match=said):
            load_video(f"{web.url}/{name}", limits=Limits(stores=(web.url,)))


def test_what_cannot_be_read_in_parts_is_fetched_within_a_bound(web, in_parts, videos):
    data = videos("h264.mkv").read_bytes()
    (web.folder / "a.mkv").write_bytes(data)
    for most, fits in ((len(data), True), (len(data) - 1, False)):
        limits = Limits(stores=(web.url,), fetched_bytes=most)
        if fits:
            load_video(f"{web.url}/a.mkv", limits=limits)
        else:
            with pytest.raises(VideoError, match="has to be taken whole, more than"):
                load_video(f"{web.url}/a.mkv", limits=limits)


# ---------------------------------------------------------------------------------------------- only stores that were named


@pytest.mark.parametrize(
    "address",
    ["s3://other/a.mp4", "s3://videos-more/a.mp4", "https://example.com/a.mp4", "file:///etc/passwd", "s3://videos/../other/a.mp4",
     "s3://videos/clips.zip::../a.mp4", "memory://a.mp4", "concat://s3://videos/a.mp4"],
)  # fmt: skip
def test_no_store_is_asked_that_was_not_named(address, monkeypatch):
    monkeypatch.setattr(stores, "_ask", lambda *args, **kwargs: pytest.fail("asked"))
    for read, error in ((load_video, VideoError), (load_image, ImageError)):
        with pytest.raises(error, match="stores that were named"):
            read(address, limits=in_bucket())
        with pytest.raises(error, match="stores that were named"):
            read(address)


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("videos", "no address"),
        ("/data", "no address"),
        ("file:///data", "a folder of this machine"),
        ("concat://x", "knows no concat"),
        ("https://me:hidden@host/x", "a name or a password"),
        ("https://host/x?token=hidden", "a query"),
        ("s3://", "names no store"),
        ("s3://a/../b", "names no store"),
        ("zip://a::s3://b", "'::'"),
    ],
)
def test_an_address_that_is_no_store_is_refused_without_its_secrets(store, said):
    with pytest.raises(ValueError, match=said) as caught:
        Limits(stores=(store,))
    assert "hidden" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------------ faults


def test_a_file_that_is_not_there_is_named(bucket, web):
    for address, store in (("s3://videos/none.mp4", "s3://videos"), (f"{web.url}/none.mp4", web.url)):
        with pytest.raises(VideoError, match="none.mp4: no such file"):
            load_video(address, limits=Limits(stores=(store,)))
    with pytest.raises(ImageError, match="no such file"):
        load_image("s3://videos/none.png", limits=in_bucket())


@pytest.mark.parametrize("times", [2, 99])
@pytest.mark.parametrize("fault", [503, "cut"])
def test_a_store_that_fails_is_asked_again_a_bounded_number_of_times(bucket, web, videos, fault, times):
    (web.folder / "a.mp4").write_bytes(videos("h264.mp4").read_bytes())
    web.fault = lambda method, path, attempt: fault if method == "GET" and attempt <= times else None
    read = lambda: load_video(f"{web.url}/a.mp4", limits=Limits(stores=(web.url,)))  # noqa: E731
    if times == 2:
        assert torch.equal(read()[0], load_video(videos("h264.mp4"))[0])
    else:
        with pytest.raises(VideoError, match=r"a.mp4: its store failed 4 times, at last with Client") as caught:
            read()
        assert sum(method == "GET" for method, *_ in web.asked) == stores.TRIES
        assert "127.0.0.1" not in caught.value.reason


@pytest.mark.parametrize("fault", [503, "cut"])
def test_s3_that_fails_now_and_then_is_asked_again(bucket, videos, fault):
    bucket.put("a.mp4", videos("h264.mp4").read_bytes())
    bucket.reset()
    bucket.fault = lambda method, path, attempt: fault if method == "GET" and attempt == 1 else None
    frames, _ = load_video("s3://videos/a.mp4", limits=in_bucket())
    assert torch.equal(frames, load_video(videos("h264.mp4"))[0])


def test_a_slow_store_costs_its_time_and_no_more(bucket, web, videos):
    bucket.put("a.mp4", videos("h264.mp4").read_bytes())
    (web.folder / "a.mp4").write_bytes(videos("h264.mp4").read_bytes())
    for server, address, store in ((bucket, "s3://videos/a.mp4", "s3://videos"), (web, f"{web.url}/a.mp4", web.url)):
        server.fault = lambda method, path, attempt: ("wait", 8.0) if method == "GET" else None
        began = time.monotonic()
        with pytest.raises(VideoError, match=r"a.mp4: (reading it takes more than 1.5 s|its store failed)"):
            load_video(address, limits=Limits(seconds=1.5, stores=(store,)))
        assert time.monotonic() - began < 7


def test_a_request_that_stands_still_is_made_again(web, videos, monkeypatch):
    monkeypatch.setattr(stores, "REQUEST_SECONDS", 1.0)
    (web.folder / "a.mp4").write_bytes(videos("h264.mp4").read_bytes())
    web.fault = lambda method, path, attempt: ("wait", 4.0) if method == "GET" and attempt == 1 else None
    load_video(f"{web.url}/a.mp4", limits=Limits(stores=(web.url,)))


def test_a_server_without_ranges_is_named_and_small_files_of_it_are_read(tmp_path, web, videos, large, monkeypatch):
    monkeypatch.setattr(stores, "WHOLE_BYTES", videos("h264.mp4").stat().st_size)
    (web.folder / "small.mp4").write_bytes(videos("h264.mp4").read_bytes())
    (web.folder / "large.mp4").write_bytes(large.read_bytes())
    plain = Server(files_of(web.folder, ranges=False))
    limits = Limits(stores=(plain.url,))
    load_video(f"{plain.url}/small.mp4", limits=limits)
    with pytest.raises(VideoError, match="gives no parts of files"):
        load_video(f"{plain.url}/large.mp4", limits=limits)
    plain.close()


def test_keys_and_addresses_stand_in_no_message(bucket, monkeypatch):
    bucket.fault = lambda method, path, attempt: 403
    with pytest.raises(VideoError) as caught:
        load_video("s3://videos/a.mp4", limits=in_bucket())
    said = str(caught.value)
    assert "its store refuses it" in said or "no such file" in said
    assert all(secret not in said for secret in ("AKIASECRET", "hidden", "127.0.0.1"))
    assert caught.value.__cause__ is None or "AKIA" not in str(caught.value.__cause__)


def test_a_name_of_a_record_is_no_part_of_a_query(web, videos):
    """What a server would take for dots, a query or a fragment stays in the name."""
    from videor1_trl.data.records import resolve_path

    (web.folder / "a%2e?x=1#y.mp4").write_bytes(videos("h264.mp4").read_bytes())
    load_video(resolve_path("a%2e?x=1#y.mp4", web.url), limits=Limits(stores=(web.url,)))
    assert [path for _, path, _ in web.asked] == ["/a%2e?x=1#y.mp4"] * 2


# -------------------------------------------------------------------------------------------------- other ways to the same


def test_images_media_checks_and_processes_read_from_stores(bucket, videos, tmp_path):
    import datasets

    Image.fromarray(picture(1, 32, 32)).save(tmp_path / "a.png")
    bucket.put("a.png", (tmp_path / "a.png").read_bytes())
    bucket.put("a.mp4", videos("h264.mp4").read_bytes())
    bucket.put("b.mp4", b"nothing")
    assert load_image("s3://videos/a.png", limits=in_bucket()).tobytes() == load_image(tmp_path / "a.png").tobytes()
    rows = [f"s3://videos/{name}.mp4" for name in ("a", "b", "none")]
    dataset = datasets.Dataset.from_dict({"video": rows, "image": ["s3://videos/a.png"] * 3})
    _, report = check_media(dataset, limits=in_bucket())
    assert (report.checked, report.missing, list(report.unreadable)) == (4, rows[2:], rows[1:2])
    frames, _ = load_video(rows[0], limits=in_bucket(), isolation="process")
    assert torch.equal(frames, load_video(videos("h264.mp4"))[0])
    with pytest.raises(VideoError, match="no such file"):
        load_video(rows[2], limits=in_bucket(), isolation="process")
    with pytest.raises(VideoError, match="stores that were named"):
        load_video("s3://other/a.mp4", limits=in_bucket(), isolation="process")


def _load_and_send(pipe, address, limits):
    pipe.send(load_video(address, limits=limits)[0].sum().item())


def test_a_forked_worker_reads_after_its_parent_did(bucket, videos):
    """As data loaders fork: the parent's loop and connections are not its child's."""
    bucket.put("a.mp4", videos("h264.mp4").read_bytes())
    expected = load_video("s3://videos/a.mp4", limits=in_bucket())[0].sum().item()
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    child = multiprocessing.get_context("fork").Process(
        target=_load_and_send, args=(theirs, "s3://videos/a.mp4", in_bucket())
    )
    child.start()
    assert ours.poll(60) and ours.recv() == expected
    child.join(10)
    assert child.exitcode == 0


def test_another_file_system_of_fsspec_is_read(videos, in_parts):
    """One that is not asynchronous, as the Hub's."""
    stores._known.clear()
    with fsspec.open("memory://store/a.mp4", "wb") as file:
        file.write(videos("h264.mp4").read_bytes())
    frames, _ = load_video("memory://store/a.mp4", limits=Limits(stores=("memory://store",)))
    assert torch.equal(frames, load_video(videos("h264.mp4"))[0])
