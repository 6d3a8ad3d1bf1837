import av
import pytest
import torch
from files import KINDS, full_decode, remux, write, x265

from videor1_trl.media import decode
from videor1_trl.media.layers import _in_lowest_layer, layer_reader
from videor1_trl.media.video import load_video


# Kinds of NAL units of H.265, table 7-1
TRAIL_N, TRAIL_R, TSA_N, TSA_R = range(4)
# One key frame and three B-frames between two P-frames, of which the middle one is needed by the two others
PYRAMID = "keyint=100:bframes=3:b-adapt=0:b-pyramid=1:scenecut=0"


def units(packet, prefix=4):
    """Place, kind and temporal id of each NAL unit of a packet."""
    data, place = bytes(packet), 0
    while place < len(data):
        kind, layer = data[place + prefix] >> 1, (data[place + prefix + 1] & 7) - 1
        yield place + prefix, kind, layer
        place += prefix + int.from_bytes(data[place : place + prefix], "big")


def relabel(source, path, kinds):
    """The same stream, its B-frames' NAL units of other kinds: (kind, temporal id) -> kind."""
    latest = -1
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        template = old.streams.video[0]
        stream = new.add_stream_from_template(template)
        for packet in old.demux(template):
            if not packet.size:
                continue
            data = bytearray(bytes(packet))
            for place, kind, layer in units(packet) if packet.pts < latest else ():
                data[place] = kinds.get((kind, layer), kind) << 1
            latest = max(latest, packet.pts)
            copy = av.Packet(bytes(data))
            copy.pts, copy.dts, copy.duration, copy.time_base = (
                packet.pts,
                packet.dts,
                packet.duration,
                packet.time_base,
            )
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            new.mux(copy)
    return path


def kinds_of(path):
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        return {(kind, layer) for packet in packets for _, kind, layer in units(packet) if kind < 10}


def decoded(monkeypatch):
    """Counts the frames that the decoder gives, one list entry each."""
    found, real = [], decode._frames_from

    def counted(*args):
        for place, frame in real(*args):
            found.append(frame.pts)
            yield place, frame

    monkeypatch.setattr(decode, "_frames_from", counted)
    return found


def test_pictures_of_an_hevc_file_that_no_other_needs_are_left_out(tmp_path, monkeypatch):
    path = write(tmp_path / "one.mp4", "libx265", frames=41, options=x265(PYRAMID))
    assert kinds_of(path) == {(TRAIL_N, 0), (TRAIL_R, 0)}
    every, found = full_decode(path), decoded(monkeypatch)
    frames, metadata = load_video(path, num_frames=5)
    assert torch.equal(frames, every[metadata.frames_indices])
    assert metadata.frames_indices == [0, 10, 20, 30, 40]
    # of 41 all are decoded up to the last; two of every four are no reference: 20 of them, none of which is asked for
    assert len(found) == 21


# the middle one of three is needed by those beside it, which lie in a higher layer: by H.265 it may call itself no reference
@pytest.mark.parametrize("layers, middle", [(3, {(TSA_R, 1): TSA_N}), (2, {(TRAIL_R, 0): TRAIL_N})])
def test_a_picture_of_a_lower_layer_that_calls_itself_no_reference_is_decoded(tmp_path, monkeypatch, layers, middle):
    source = write(tmp_path / "x.mp4", "libx265", frames=41, options=x265(f"{PYRAMID}:temporal-layers={layers}"))
    path = relabel(source, tmp_path / "layers.mp4", middle)
    every, found = full_decode(path), decoded(monkeypatch)
    assert torch.equal(every, full_decode(source))
    for num_frames in (2, 5, 9, 14):  # at odd places too, which need a middle one
        frames, metadata = load_video(path, num_frames=num_frames)
        assert torch.equal(frames, every[metadata.frames_indices])
    assert len(set(found)) == 41


@pytest.mark.parametrize("name", ["vp9.webm", "av1.mp4", "mpeg4.avi", "hevc.ts"])
def test_nothing_is_left_out_where_that_would_not_be_exact(videos, tmp_path, name):
    path = videos(name) if name in KINDS else remux(videos("hevc.mp4"), tmp_path / name)
    with av.open(str(path)) as container:
        says = layer_reader(container.streams.video[0])
        assert not any(says(packet) for packet in container.demux(video=0))


@pytest.mark.parametrize("data, lowest", [
    (bytes([0, 0, 0, 3, TRAIL_N << 1, 1, 0]), True),
    (bytes([0, 0, 0, 3, TSA_N << 1, 2, 0]), False),
    (bytes([0, 0, 0, 3, 35 << 1, 3, 0, 0, 0, 0, 3, TRAIL_R << 1, 1, 0]), True),  # a delimiter is no picture
    (bytes([0, 0, 0, 3, TRAIL_R << 1, 1, 0, 0, 0, 0, 3, TRAIL_R << 1, 2, 0]), False),
    (bytes([0, 0, 0, 3, 35 << 1, 1, 0]), False),  # no picture: nothing is known
    (b"", False),
    (bytes([0, 0, 0, 3, TRAIL_N << 1]), False),
])  # fmt: skip
def test_the_layer_of_a_packet_is_read_from_the_heads_of_its_units(tmp_path, data, lowest):
    assert _in_lowest_layer(memoryview(data), 4) is lowest
