"""Media files that the tests make: videos of every kind, whole, cut and remuxed."""

import struct
from fractions import Fraction

import av
import numpy as np
import torch


def picture(number, width, height):
    """A frame that differs from every other: a texture that moves, and the number's bits as blocks."""
    x, y = np.arange(width), np.arange(height)[:, None]
    image = np.stack([(x * 3 + y + 7 * number) % 256, (x + y * 2 - 5 * number) % 256, (x * y // 4 + number) % 256], -1)
    for bit in range(8):
        image[:8, bit * 6 : bit * 6 + 6] = 255 * (number >> bit & 1)
    return image.astype(np.uint8)


def write(path, codec="libx264", frames=60, size=(96, 64), rate=30, pix_fmt="yuv420p", options=None, times=None):
    """A short video; `times` are the frames' presentation times in units of 1 / 1000 s for a variable rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remux(source, path, keep=lambda packet: True, shift=0, options=None):
    """The packets of `source` that `keep` accepts, times shifted by `shift` units, in another container."""
    with av.open(str(source)) as old, av.open(str(path), "w", options=options or {}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size and keep(packet):
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = stream
                new.mux(packet)
    return path


def set_matrix(path, right, right_to_down, down_to_right, down):
    """Writes a display matrix of these four numbers into the track header (ISO 14496-12, 8.3.2) of an mp4."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    rows = [right << 16, right_to_down << 16, 0, down_to_right << 16, down << 16, 0, 0, 0, 1 << 30]
    data[place : place + 36] = struct.pack(">9i", *rows)
    path.write_bytes(data)


def full_decode(path):
    """The oracle: every frame that a plain PyAV decode gives, RGB uint8 (N, 3, H, W), upright."""
    with av.open(str(path)) as container:
        frames = [np.rot90(f.to_ndarray(format="rgb24"), f.rotation // 90) for f in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def x264(**parameters):
    return {"preset": "veryfast", "x264-params": ":".join(f"{k}={v}" for k, v in parameters.items())}


def x265(parameters):
    return {"preset": "ultrafast", "x265-params": f"log-level=none:pools=none:frame-threads=1:{parameters}"}


GOP = {"keyint": 12, "min-keyint": 12, "scenecut": 0, "bframes": 3, "b-pyramid": "normal"}
KINDS = {
    "h264.mp4": dict(options=x264(**GOP)),
    "h264_one_key.mp4": dict(options=x264(keyint=250)),
    "h264_open_gop.mp4": dict(options=x264(**GOP | {"open-gop": 1})),
    "h264_intra_refresh.mp4": dict(options=x264(**GOP | {"intra-refresh": 1, "bframes": 0})),
    "h264_faststart.mp4": dict(options=x264(**GOP)),
    "h264.mkv": dict(options=x264(**GOP)),
    "h264.ts": dict(options=x264(**GOP)),
    "h264.avi": dict(options=x264(**GOP | {"bframes": 0})),
    "h264_10_bit.mp4": dict(options=x264(**GOP), pix_fmt="yuv420p10le"),
    "h264_444.mp4": dict(options=x264(**GOP), pix_fmt="yuv444p", size=(97, 63)),
    "h264_rate.mp4": dict(options=x264(**GOP), rate=Fraction(30000, 1001)),
    "hevc.mp4": dict(codec="libx265", options=x265("keyint=12:min-keyint=12:scenecut=0:bframes=3:open-gop=0")),
    "hevc_open_gop.mp4": dict(
        codec="libx265", options=x265("keyint=12:min-keyint=12:scenecut=0:bframes=3:open-gop=1")
    ),
    "hevc_leading.mp4": dict(  # closed groups: what is shown before a key frame and stored after it needs only that
        codec="libx265", options=x265("keyint=12:min-keyint=12:scenecut=0:bframes=3:open-gop=0:radl=2")
    ),
    "hevc_layers.mkv": dict(codec="libx265", options=x265("keyint=12:min-keyint=12:temporal-layers=3:bframes=3")),
    "vp9.webm": dict(codec="libvpx-vp9", options={"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    "vp9_altref.webm": dict(
        codec="libvpx-vp9", options={"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5"}
    ),
    "vp8.webm": dict(codec="libvpx", options={"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5"}),
    "av1.mp4": dict(codec="libsvtav1", frames=30, options={"preset": "12", "g": "12", "svtav1-params": "lp=1"}),
    "mpeg4.avi": dict(codec="mpeg4", options={"g": "12"}),
    "mpeg4_bframes.avi": dict(codec="mpeg4", options={"g": "12", "bf": "2"}),
    "mpeg4.mp4": dict(codec="mpeg4", options={"g": "12", "bf": "2"}),
    "mjpeg.mov": dict(codec="mjpeg", pix_fmt="yuvj420p"),
    "animation.gif": dict(codec="gif", pix_fmt="rgb8", rate=10, frames=30),
}


def cut(path, to, share):
    to.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return to


def written(path, data):
    path.write_bytes(data)
    return path
