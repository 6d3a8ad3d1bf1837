"""Subtitles: what is read of SubRip files and of JSON, and which of them stand in a prompt."""

import json
import math

import pytest

from videor1_trl.text.subtitles import Subtitle, read_subtitles, subtitles_text


SRT = """\ufeff1
00:00:01,000 --> 00:00:02,500
<font color="white" size=".72c">Hello &amp; welcome,</font>
to  you.

2
00:01:00,250 --> 01:00:01,000 position:50%
A door.

00:00:03.000 --> 00:00:03.100
[no number]

4
00:00:05,000 --> 00:00:06,000
<i> </i>
"""


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_subrip_files_are_read_without_tags_and_empty_lines(tmp_path):
    assert read_subtitles(written(tmp_path, "a.srt", SRT)) == [
        (1.0, 2.5, "Hello & welcome, to you."),
        (60.25, 3601.0, "A door."),
        (3.0, 3.1, "[no number]"),
    ]
    assert read_subtitles(written(tmp_path, "b.srt", SRT.replace("\n", "\r\n")))[0].text == "Hello & welcome, to you."
    assert read_subtitles(written(tmp_path, "c.srt", "")) == []


def test_both_forms_of_json_are_read_from_where_the_video_begins(tmp_path):
    rows = [
        {"start": "00:00:10.500", "end": "00:00:12.000", "line": "Once."},
        {"timestamp": [13.0, None], "text": "More."},
    ]
    found = read_subtitles(written(tmp_path, "a.json", json.dumps(rows)), first_second=10.0)
    assert found == [(0.5, 2.0, "Once."), (3.0, math.inf, "More.")]


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("a.srt", "hello\nyou\n", "a block without a line of times"),
        ("b.srt", "1\n00:xx:01,0 --> 00:00:02,0\nHi", "a block without a line of times"),
        ("c.json", "{}", "a list of subtitles is needed, not dict"),
        ("d.json", '[{"from": 1}]', "subtitle 0 has neither start, end, line nor timestamp, text, but from"),
        ("e.json", '[{"start": "x", "end": 2, "line": "Hi"}]', "'x' is no time such as"),
        ("f.json", "[", "Expecting value"),
    ],
)
def test_a_bad_file_is_named_with_the_place(tmp_path, name, text, said):
    with pytest.raises(ValueError, match=f"{name}: .*{said}"):
        read_subtitles(written(tmp_path, name, text))
    with pytest.raises(FileNotFoundError, match="no such file of subtitles"):
        read_subtitles(tmp_path / "none.srt")


def test_what_is_said_at_a_sampled_frame_counts_in_the_order_of_time():
    """The third, of 0.2 s, counts from 6.6 to 7.6 s."""
    said = [Subtitle(4, 6, "second"), Subtitle(0, 2, "first"), Subtitle(7.0, 7.2, "third"), Subtitle(9, 12, "last")]

    def shown(*seconds):
        return subtitles_text(said, seconds).splitlines()[1:]

    assert shown(1.0, 5.0) == ["first", "second"] and shown(2.0) == [] and shown(6.65) == ["third"]
    assert subtitles_text(said, [2.0]) == "The video has subtitles, but none at these frames."
    assert subtitles_text(said, None).splitlines()[1:] == ["first", "second", "third", "last"]
    assert subtitles_text([], [1.0]) == "The video has no subtitles."
