"""What reading a file may reach and take: no other file, no program, bounded time and memory; mutants of every kind."""

import gc
import io
import os
import re
import struct
import sys
import time
import zlib
from pathlib import Path

import datasets
import PIL.Image
import pytest
from files import full_decode, written

from videor1_trl.media import decode
from videor1_trl.media.check import check_media
from videor1_trl.media.containers import check_announced
from videor1_trl.media.errors import ImageError, VideoError
from videor1_trl.media.images import load_image
from videor1_trl.media.limits import IMAGE_FORMATS, VIDEO_FORMATS, Limits, TooMuch, metered
from videor1_trl.media.opening import Timed
from videor1_trl.media.video import load_video


sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))


# --------------------------------------------------------------------------------------------- no other file, no program


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.ts", "list"])
@pytest.mark.parametrize("text", [PLAYLIST, "ffconcat version 1.0\nfile {}\n"], ids=["hls", "concat"])
def test_a_text_that_names_another_file_is_no_video(videos, tmp_path, name, text):
    """Read as playlists they gave the frames of the other file, which may lie outside the data root."""
    other = tmp_path / "other.ts"
    other.write_bytes(videos("h264.ts").read_bytes())
    path = written(tmp_path / name, text.format("other.ts").encode())
    with pytest.raises(VideoError, match="cannot be read"):
        load_video(path, num_frames=2)
    with pytest.raises(VideoError, match="cannot be read"):
        load_video({"bytes": text.format(other).encode()}, num_frames=2)
    dataset = datasets.Dataset.from_dict({"video": [str(path)]})
    assert list(check_media(dataset)[1].unreadable) == [str(path)]


def test_a_playlist_of_itself_ends_at_once(tmp_path):
    path = tmp_path / "loop.m3u8"
    path.write_text(PLAYLIST.format("loop.m3u8"))
    since = time.monotonic()
    with pytest.raises(VideoError):
        load_video(path)
    assert time.monotonic() - since < 5


def test_a_pattern_of_names_is_no_series_of_pictures(tmp_path):
    """`img%03d.jpg`, a file of that name, was read as img001.jpg, img002.jpg, ..."""
    for number in range(1, 4):
        PIL.Image.new("RGB", (32, 32), (number * 60, 0, 0)).save(tmp_path / f"img{number:03}.jpg")
    PIL.Image.new("RGB", (32, 32), "blue").save(tmp_path / "img%03d.jpg", "JPEG")
    with pytest.raises(VideoError, match="cannot be read"):
        load_video(tmp_path / "img%03d.jpg")
    assert load_image(tmp_path / "img%03d.jpg").getpixel((0, 0))[2] > 200  # the file itself


@pytest.mark.parametrize("name", ["photo.jpg", "photo.eps"])
def test_no_program_is_started(tmp_path, monkeypatch, name):
    """Pillow hands EPS to Ghostscript, whatever the file's name is."""
    (tmp_path / "bin").mkdir()
    script = written(tmp_path / "bin" / "gs", b"#!/bin/sh\ntouch " + str(tmp_path / "ran").encode() + b"\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(ImageError, match="none of AVIF, BMP"):
        load_image(written(tmp_path / name, data))
    assert not (tmp_path / "ran").exists()


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    os.symlink("/dev/zero", tmp_path / "device.mp4")
    os.symlink("/dev/zero", tmp_path / "device.jpg")
    for name in ("pipe.mp4", "device.mp4"):
        with pytest.raises(VideoError, match="not a regular file"):
            load_video(tmp_path / name)
    with pytest.raises(ImageError, match="not a regular file"):
        load_image(tmp_path / "device.jpg")
    with pytest.raises(VideoError, match="not a regular file"):
        load_video([str(tmp_path / "device.jpg")])


def test_links_to_files_are_followed(videos, tmp_path):
    os.symlink(videos("h264.mp4"), tmp_path / "link.mp4")
    assert len(load_video(tmp_path / "link.mp4", num_frames=2)[0]) == 2


@pytest.mark.parametrize(
    "form", ["EPS", "WMF", "PSD", "FITS", "HDF5", "GRIB", "BUFR", "IPTC", "MPEG", "SPIDER", "XBM", "XPM"]
)
def test_rare_formats_and_those_with_handlers_are_on_no_list(form):
    assert form not in IMAGE_FORMATS


@pytest.mark.parametrize(
    "form", ["hls", "concat", "image2", "image2pipe", "tty", "dash", "lavfi", "sdp", "rtsp", "jpeg_pipe"]
)
def test_demuxers_that_reach_elsewhere_are_on_no_list(form):
    assert form not in VIDEO_FORMATS


def test_the_manual_shows_the_lists():
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    assert set(VIDEO_FORMATS) | set(IMAGE_FORMATS) <= set(re.findall(r"\w+", text))


# --------------------------------------------------------------------------------------------------- bounds of a reading


def gif(width, height, frames=20):
    """A GIF whose frames change one pixel of a large screen."""
    one = b"\x21\xf9\x04\x00\x0a\x00\x00\x00\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes([0, 0, 0, 255, 255, 255])
    return b"GIF89a" + screen + one * frames + b";"


def box(kind, *content):
    data = b"".join(content)
    return struct.pack(">I4s", len(data) + 8, kind) + data


def numbers(*values):
    return struct.pack(f">{len(values)}I", *values)


def rebuilt(data, boxes):
    """An mp4 with the content of some boxes changed, `None`: without them."""
    out, place = b"", 0
    while place + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        content = data[place + 8 : place + length]
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            content = rebuilt(content, boxes)
        content = boxes.get(kind, content)
        out += b"" if content is None else box(kind, content)
        place += length
    return out


def announcing(data, count):
    """An mp4 that announces so many frames of one byte each, in a table of one line."""
    tables = {b"stsz": numbers(0, 1, count), b"stts": numbers(0, 1, count, 512), b"stsc": numbers(0, 1, 1, count, 1)}
    return rebuilt(data, tables | {b"ctts": None, b"stss": None})


def test_a_large_screen_in_a_small_gif_is_refused(tmp_path):
    """8000 x 8000 in 500 bytes took 5.9 GiB."""
    with pytest.raises(VideoError, match="its frame of 8000 x 8000 has more than 33,554,432 pixels. Scale it down"):
        load_video(written(tmp_path / "huge.gif", gif(8000, 8000)))
    assert len(load_video({"bytes": gif(80, 80)})[0]) == 4


def test_frames_of_8k_are_within_the_limits():
    Limits().check_pixels(7680, 4320)
    Limits().check_pixels(8192, 4096)
    with pytest.raises(ValueError, match="more than 33,554,432 pixels"):
        Limits().check_pixels(8192, 4097)


@pytest.mark.parametrize(
    "name", ["h264.mp4", "vp9.webm", "av1.mp4", "mpeg4.avi", "h264.ts", "animation.gif", "mjpeg.mov"]
)
def test_frames_above_the_limit_are_refused_in_every_container(videos, name):
    assert load_video(videos(name), limits=Limits(frame_pixels=96 * 64), num_frames=2)[0].shape[2:] == (64, 96)
    with pytest.raises(VideoError, match="pixels|frames? .*decode|is damaged"):
        load_video(videos(name), limits=Limits(frame_pixels=96 * 64 - 1))


def test_an_mp4_that_announces_more_frames_than_are_walked_is_refused_unopened(videos, tmp_path):
    """20 million frames in 6 KB took 24 s and 1.4 GiB, most of it when the file was opened."""
    data = announcing(videos("h264.mp4").read_bytes(), 20_000_000)
    with pytest.raises(VideoError, match="more than 3,000,000 packets"):
        load_video(written(tmp_path / "many.mp4", data))
    run = box(b"moof", box(b"traf", box(b"trun", numbers(0, 20_000_000))))
    with pytest.raises(TooMuch):
        check_announced(videos("h264.mp4").read_bytes() + run)
    check_announced(
        videos("h264.mp4").read_bytes() + box(b"moof", box(b"traf", box(b"trun", numbers(0x200, 4 * 10**9))))
    )


@pytest.mark.parametrize("holder", [b"udta", b"tref", b"edts", b"mvex", b"wave", b"dinf", b"sinf", b"ilst", b"moov"])
def test_tables_are_found_wherever_ffmpeg_finds_them(videos, holder):
    """FFmpeg reads tables inside these boxes too; opened, such a file took 5 s and 1.4 GiB."""
    data = videos("h264.mp4").read_bytes()
    nested = {b"stsz": None, b"stss": box(holder, box(b"stsz", numbers(0, 1, 20_000_000)))[8:]}
    found = rebuilt(data, nested).replace(b"stss", holder)
    with pytest.raises(TooMuch, match="more than 3,000,000 packets"):
        check_announced(found)


def test_tables_are_found_in_a_packed_head_and_behind_unknown_boxes(videos):
    data = announcing(videos("h264.mp4").read_bytes(), 20_000_000)
    with pytest.raises(TooMuch):
        check_announced(box(b"abcd", bytes(16)) + data)
    place = data.index(b"moov") - 4
    head = data[place : place + int.from_bytes(data[place : place + 4], "big")]
    for content, error in ((head, TooMuch), (head + bytes(2**26), ValueError)):
        packed = struct.pack(">I", len(content)) + zlib.compress(content)
        with pytest.raises(error):
            check_announced(box(b"ftyp", b"qt  ") + box(b"moov", box(b"cmov", box(b"cmvd", packed))))


def test_boxes_within_boxes_without_end_are_no_video():
    data = b""
    for _ in range(3000):
        data = box(b"moov", data)
    with pytest.raises(VideoError, match="more than 32 deep"):
        load_video({"bytes": data})


@pytest.mark.parametrize("name", ["animation.gif", "h264.ts", "mpeg4.avi", "h264.mp4"])
def test_a_frame_that_was_looked_at_is_let_go(videos, name):
    """Its side data point back at it: 2,000 frames of a GIF of 800 KB took 24 GiB and the machine's other processes."""
    gc.collect()
    gc.disable()
    try:
        load_video(videos(name), num_frames=20)
        assert sum(isinstance(each, decode.VideoFrame) for each in gc.get_objects()) <= 3
    finally:
        gc.enable()


def test_the_samples_of_a_long_sound_are_not_taken_for_frames():
    """PCM counts every sample: an hour at 48 kHz are 172.8 million; FFmpeg keeps its chunks."""

    def track(kind, unit):
        tables = box(b"stts", numbers(0, 1, 172_800_000, unit)), box(b"stsz", numbers(0, 2, 172_800_000))
        handler = box(b"hdlr", numbers(0, 0) + kind + bytes(12))
        return box(b"ftyp", b"qt  ") + box(
            b"moov", box(b"trak", box(b"mdia", handler, box(b"minf", box(b"stbl", *tables))))
        )

    check_announced(track(b"soun", 1))
    for kind, unit in ((b"soun", 1024), (b"vide", 1)):
        with pytest.raises(TooMuch):
            check_announced(track(kind, unit))


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "mpeg4.avi", "animation.gif"])
def test_packets_and_frames_are_counted(videos, name):
    total = len(full_decode(videos(name)))
    assert len(load_video(videos(name), num_frames=3, limits=Limits(packets=total + 1))[0]) == 3
    with pytest.raises(VideoError, match=f"more than {total - 1} packets"):
        load_video(videos(name), limits=Limits(packets=total - 1))


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "mpeg4.avi", "animation.gif"])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_time_runs_out(videos, name, as_bytes):
    source = {"bytes": videos(name).read_bytes()} if as_bytes else videos(name)
    with pytest.raises(VideoError, match=r"reading it takes more than 1e-05 s\. Encode it anew, or raise the limit"):
        load_video(source, limits=Limits(seconds=1e-5))


def test_time_runs_out_within_a_demuxer(videos):
    """Where it goes round in the file without giving a packet, no line of ours is reached: its reads are ended."""

    class Round(Timed):
        def read(self, size=-1, /):
            found = super().read(size)
            if not found:
                self.seek(0)
                found = super().read(size)
            return found

    data = videos("h264.ts").read_bytes()
    broken = bytes(byte ^ 0x47 if byte == 0x47 else byte for byte in data)  # no packet can be found, and no end
    since = time.monotonic()
    with metered(Limits(seconds=0.3)), pytest.raises((TooMuch, decode.av.FFmpegError)):
        with decode.av.open(Round(broken), format="mpegts") as container:
            list(container.demux())
    assert time.monotonic() - since < 10


def test_the_bytes_of_the_frames_taken_are_bounded(videos):
    taken = 4 * 96 * 64 * 3
    assert len(load_video(videos("h264.mp4"), num_frames=4, limits=Limits(frames_bytes=taken))[0]) == 4
    with pytest.raises(VideoError, match="4 frames of 96 x 64 take 0.0 GiB"):
        load_video(videos("h264.mp4"), num_frames=4, limits=Limits(frames_bytes=taken - 1))


def test_frames_are_held_once(videos, monkeypatch):
    """Each is written into its place as it is decoded; lists of frames that are then put together hold them twice."""
    held = []
    add = decode.Frames.add

    def noted(self, picture):
        add(self, picture)
        held.append(self._stack.nbytes)

    monkeypatch.setattr(decode.Frames, "add", noted)
    frames, _ = load_video(videos("h264.mp4"), num_frames=8)
    assert set(held) == {frames.untyped_storage().nbytes()} == {8 * 96 * 64 * 3}


def test_a_folder_of_pictures_is_held_once_and_within_its_bytes(tmp_path):
    for number in range(4):
        PIL.Image.new("RGB", (32, 24), (number * 60, 0, 0)).save(tmp_path / f"{number}.png")
    source = {"frames": str(tmp_path), "fps": 1}
    frames, _ = load_video(source, num_frames=4)
    assert frames[:, 0, 0, 0].tolist() == [0, 60, 120, 180] and frames.untyped_storage().nbytes() == 4 * 32 * 24 * 3
    with pytest.raises(VideoError, match="4 frames of 32 x 24 take 0.0 GiB"):
        load_video(source, num_frames=4, limits=Limits(frames_bytes=4 * 32 * 24 * 3 - 1))
    with pytest.raises(VideoError, match="reading it takes more than"):
        load_video(source, num_frames=4, limits=Limits(seconds=1e-9))


def png(width, height):
    """A PNG of any size in a few hundred bytes, its pixels left out."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def test_large_images_are_refused_by_their_heads(monkeypatch, tmp_path):
    with pytest.raises(ImageError, match="178,956,970|decompression bomb"):
        load_image({"bytes": png(20_000, 20_000)})
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", None)  # as some programs set it
    with pytest.raises(ImageError, match="its image of 20000 x 20000 has more than 178,956,970 pixels"):
        load_image({"bytes": png(20_000, 20_000)})
    with open(tmp_path / "sparse.jpg", "wb") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(ImageError, match="more than 1,073,741,824 bytes"):
        load_image(tmp_path / "sparse.jpg")


def progressive(side, scans):
    """A JPEG whose last scan, 31 bytes over all of its pixels, is there many times."""
    buffer = io.BytesIO()
    PIL.Image.new("L", (side, side), 100).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * scans + b"\xff\xd9"


def test_time_runs_out_within_an_image():
    """156 KB of such scans took 50 s."""
    since = time.monotonic()
    with pytest.raises(ImageError, match=r"reading it takes more than 0\.2 s"):
        load_image({"bytes": progressive(2000, 3000)}, limits=Limits(seconds=0.2))
    assert time.monotonic() - since < 5
    assert load_image({"bytes": progressive(100, 3)}).size == (100, 100)


def test_the_pictures_of_a_video_have_its_time_and_no_time_of_their_own():
    pictures = [{"bytes": progressive(1000, 30)} for _ in range(50)]
    with pytest.raises(VideoError, match=r"reading it takes more than 0\.2 s"):
        load_video(pictures, limits=Limits(seconds=0.2))


@pytest.mark.parametrize("name", ["seconds", "frame_pixels", "packets"])
def test_limits_are_above_zero(name):
    with pytest.raises(ValueError, match=re.escape(f"{name} (0) of the limits must be above 0")):
        Limits(**{name: 0})


# ------------------------------------------------------------------------------------------ a failure is its file's own


@pytest.mark.parametrize(
    "error", [RuntimeError("AVIF"), MemoryError(), OverflowError("x"), TypeError("y"), RecursionError()]
)
def test_whatever_a_decoder_raises_is_a_video_error(videos, monkeypatch, error):
    path = videos("h264.mp4")

    def fail(*args):
        raise error

    monkeypatch.setattr(decode, "pixels_of", fail)
    with pytest.raises(VideoError, match=f"cannot be read \\({type(error).__name__}"):
        load_video(path)
    monkeypatch.setattr("videor1_trl.media.check.video_stream", fail)
    dataset = datasets.Dataset.from_dict({"video": [str(path)]})
    assert len(check_media(dataset, drop=True)[0]) == 0


@pytest.mark.parametrize(
    "bounds, message",
    [
        ({"start": 10**400}, "start is a number beyond all lengths"),
        ({"start": [1.0]}, "start must be seconds, not [1.0]"),
        ({"end": "2"}, "end must be seconds, not '2'"),
        ({"start": {"a": 1}}, "start must be seconds"),
        ({"end": float("nan")}, "must be seconds with 0 <= start < end"),
        ({"end": -(10**400)}, "end is a number beyond"),
    ],
)
def test_a_bound_that_is_no_time_is_the_clips_error(videos, bounds, message):
    for source in ({"path": str(videos("h264.mp4"))}, {"bytes": videos("h264.mp4").read_bytes()}):
        with pytest.raises(VideoError, match=re.escape(message)):
            load_video(source | bounds)


@pytest.mark.parametrize("path", ["\udce9.mp4", "a\0b.mp4", "x" * 5000, "\ud800"])
def test_odd_paths_are_named(path):
    for load, error in ((load_video, VideoError), (load_image, ImageError)):
        with pytest.raises(error, match="no such file") as caught:
            load(path)
        str(caught.value).encode()  # can be printed and written
    with pytest.raises(VideoError):
        load_video({"path": path, "\ud800": 1})


def test_a_check_names_odd_cells_and_goes_on(videos):
    path = str(videos("h264.mp4"))
    clips = [
        {"path": path, "start": 0.0, "end": 1.0},
        {"path": path, "start": 5.0, "end": 9.0},
        {"path": "a\0", "start": None, "end": None},
    ]
    dataset, report = check_media(
        datasets.Dataset.from_list([{"video": clip} for clip in clips]), decode="sampled_frames", drop=True
    )
    assert report.rows == [1, 2] and len(dataset) == 1
    lists = datasets.Dataset.from_list([{"video": {"path": [path], "start": [0.0]}}])
    assert check_media(lists, decode="sampled_frames")[1].rows == [0]


# -------------------------------------------------------------------------------------------------- mutants of all kinds


@pytest.mark.slow
def test_300_mutants_are_read_or_refused(tmp_path):
    """`make fuzz` reads 10,000: each gives frames or an error that is its own, within bounds."""
    import fuzz_media

    lines = fuzz_media.campaign(tmp_path, seed=0, count=300)
    assert [line["number"] for line in lines] == list(range(300))
    assert len({line["name"] for line in lines}) >= 38
    assert not [line for line in lines if line["outcome"] not in ("read", "refused")]
    assert max(line["memory_mib"] for line in lines) < 1024
    outcomes = [line["outcome"] for line in lines]
    assert outcomes.count("read") > 30 and outcomes.count("refused") > 100


def test_a_mutant_follows_from_seed_and_number(tmp_path):
    import fuzz_media

    made = {"a": bytes(range(256)) * 4, "b": b"other" * 100}
    assert fuzz_media.mutant(made, 3, 5) == fuzz_media.mutant(made, 3, 5) != fuzz_media.mutant(made, 3, 7)
