"""Long files in bounded memory: what is held grows with the frames taken, not with the length of the file."""

from pathlib import Path

import av
import numpy as np
import pytest

from videor1_trl import load_video


def mib(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's peak of resident memory")
@pytest.mark.parametrize("frames", [64, 128])
def test_a_ten_minute_file_is_read_in_a_share_of_what_all_its_frames_take(tmp_path, frames):
    """1,200 frames of 320 x 240 are 264 MiB as RGB, 128 of them 28 MiB."""
    path = tmp_path / "long.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 2, options={"preset": "ultrafast", "g": "20"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for place in range(1200):
            frame = np.full((240, 320, 3), place % 256, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    load_video(str(path), fps=2.0, min_frames=4, max_frames=4, num_frames=None)  # what is made once
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held now
    before = mib("VmRSS")
    loaded, metadata = load_video(str(path), fps=2.0, min_frames=4, max_frames=frames, num_frames=None)
    assert len(loaded) == frames and metadata.timestamps[-1] > 599
    assert mib("VmHWM") - before < 130
