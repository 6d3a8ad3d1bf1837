"""Tests of videor1_trl.data: records to columns, and paths that stay under the root."""

import json
import os
import re

import datasets
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from videor1_trl.data.placing import place_row
from videor1_trl.data.records import load_video_r1, resolve_path


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


# --- load_video_r1 -----------------------------------------------------------------------------------------------


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
    path = write(tmp_path / "r.json", [record(), record(problem=""), record(problem_id=[8]), record(problem_id=9)])
    dataset = load_video_r1(path, on_bad_record="drop")
    assert dataset["problem_id"][:] == [7, 9]
    assert "Dropped 2 of 4 records" in caplog.text and "record 2, field 'problem_id'" in caplog.text
    with pytest.raises(ValueError, match=re.escape("on_bad_record ('skip') must be 'raise' or 'drop'.")):
        load_video_r1(path, on_bad_record="skip")


@pytest.mark.parametrize(
    ("name", "first", "other"),
    [
        ("extra", 1, "one"),
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
    with pytest.raises(ValueError, match="holds no record"):
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


# --- resolve_path ------------------------------------------------------------------------------------------------


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


def test_symbolic_links_of_the_users_are_followed(tmp_path):
    for folder in ("root", "media"):
        (tmp_path / folder).mkdir()
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "media")
    assert resolve_path("linked/a.mp4", tmp_path / "root") == str(tmp_path / "root/linked/a.mp4")
    # ".." is worked out before the link: not media's parent folder
    assert resolve_path("linked/../a.mp4", tmp_path / "root") == str(tmp_path / "root/a.mp4")
    (tmp_path / "alias").symlink_to(tmp_path / "root")  # root itself a link, the record's path spelled without it
    assert resolve_path(str(tmp_path / "root/a.mp4"), tmp_path / "alias") == str(tmp_path / "root/a.mp4")


def test_numbers_that_are_none_are_warned_about(tmp_path, caplog):
    """`accuracy_reward` has no verdict on them; the released rule scores them 0 in silence."""
    file = tmp_path / "records.json"
    records = [
        RECORD | {"problem_type": kind, "solution": f"<answer>{gold}</answer>"}
        for kind, gold in [("numerical", "3"), ("numerical", "one half"), ("regression", "a lot"), ("free-form", "x")]
    ]
    file.write_text(json.dumps(records))
    assert len(load_video_r1(file)) == 4
    assert "2 of 4 records ask for a number" in caplog.text and "record 1" in caplog.text


# --- answers that a letter can meet, and ids ---------------------------------------------------------------------


@pytest.mark.parametrize("gold", ["blue", "B. blue", "(B)", "b", " B ", "Blue."])
@pytest.mark.parametrize("options", [["A. red", "B. blue"], ["red", "blue"], ["(A) red", "(B) blue"]])
def test_a_gold_that_is_an_option_becomes_the_letter_that_the_prompt_asks_for(tmp_path, gold, options):
    file = write(tmp_path / "r.json", [record(solution=f"<answer>{gold}</answer>", options=options)])
    [row] = load_video_r1(file).to_list()
    assert row["solution"].replace(" ", "") == "<answer>B</answer>"
    assert row["options"] == options
    text = row["prompt"][0]["content"]
    assert "A. red\nB. blue" in text or "(A) red\n(B) blue" in text, "the letters can be seen"


@pytest.mark.parametrize("gold", ["AB", "A, B", "A and B", "C", "green", "red, blue"])
def test_a_gold_that_no_letter_can_meet_is_refused_or_dropped(tmp_path, gold, caplog):
    file = write(tmp_path / "r.json", [record(solution=f"<answer>{gold}</answer>"), record()])
    with pytest.raises(
        ValueError, match=r"(?s)record 0, field 'solution': .* names none of its options, or more than one"
    ):
        load_video_r1(file)
    assert len(load_video_r1(file, on_bad_record="drop")) == 1
    assert "Dropped 1 of 2 records" in caplog.text


def test_ids_of_two_types_drop_no_record(tmp_path, caplog):
    ids = [7, "x-8", None, 9]
    dataset = load_video_r1(write(tmp_path / "r.json", [record(problem_id=each) for each in ids]))
    assert dataset["problem_id"][:] == ["7", "x-8", None, "9"]
    assert "'problem_id' holds numbers and texts" in caplog.text
    with pytest.raises(ValueError, match="one column has one type"):
        load_video_r1(write(tmp_path / "s.json", [record(problem_id=7), record(problem_id=[8])]))


# --- what scraped files hold -------------------------------------------------------------------------------------


def line(**changes):
    return json.dumps(record(**changes))


@pytest.mark.parametrize(
    "bad, message",
    [
        (line(extra=0).replace(": 0", ": " + "9" * 5000), "field 'extra': is an integer of 5,000 digits"),
        (
            line(problem=0).replace('"problem": 0', '"problem": ' + "9" * 5000),
            "field 'problem': is an integer of 5,000",
        ),
        ("[" * 100_000, "line 2 is nested too deeply to be read"),
        (
            line(extra=0).replace(": 0", ": " + "[" * 200 + "]" * 200),
            "field 'extra': is nested more than 50 levels deep",
        ),
        (line(**{"\ud800": 1}), r"field '\ud800': its name holds what is no character"),
        (line(**{"a\0b": 1}), r"field 'a\x00b': its name holds what is no character"),
        (line(extra="\ud800"), "field 'extra': '\\ud800' cannot be stored"),
        (line(extra={"\ud800": 1}), "field 'extra': "),
        (line(problem="\udfff?"), "cannot be stored"),
        (line(path="clips/\ud800.mp4"), "cannot be stored"),
    ],
)
def test_a_record_that_nothing_can_hold_is_named_and_left_out(tmp_path, bad, message):
    file = tmp_path / "r.jsonl"
    file.write_text("\n".join([line(), bad, line()]))
    with pytest.raises(ValueError, match=re.escape("record 1, ")) as caught:
        load_video_r1(file)
    assert message in str(caught.value)
    str(caught.value).encode()
    dropped = []
    assert len(load_video_r1(file, on_bad_record="drop", dropped=dropped)) == 2
    assert dropped and all("record 1" in each for each in dropped)


def test_an_array_nested_too_deeply_is_named(tmp_path):
    (tmp_path / "r.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"r\.json is nested too deeply"):
        load_video_r1(tmp_path / "r.json")


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(
    st.lists(
        st.dictionaries(st.sampled_from([*RECORD, "extra", "prompt", ""]) | ANY_TEXT, ANY_JSON, max_size=3), max_size=4
    )
)
def test_records_of_any_kind_are_read_or_named(tmp_path_factory, changes):
    """One well-formed record, and others with anything in them: nothing but a ValueError that names records ever comes."""
    file = tmp_path_factory.mktemp("any") / "r.jsonl"
    file.write_text("\n".join([line(), *(json.dumps(RECORD | each) for each in changes)]))
    dataset = load_video_r1(file, on_bad_record="drop")
    assert 1 <= len(dataset) <= 1 + len(changes) and dataset["problem"][0] == RECORD["problem"]
    try:
        load_video_r1(file)
    except ValueError as error:
        assert "malformed" in str(error) and "r.jsonl, record " in str(error)
        str(error).encode()


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [{"role": "user", "content": [{"text": "no type"}]}]},
        {"prompt": [{"role": "user", "content": [7]}], "video": "a.mp4"},
        {"prompt": [{"role": "user", "content": "x"}], "videos": 5},
        {"prompt": [{"role": "user", "content": 5}], "image": "a.png"},
    ],
)
def test_a_prompt_of_another_shape_is_the_rows_error(row):
    assert isinstance(place_row(row), ValueError)
