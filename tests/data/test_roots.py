"""Where the media of records lie: folders, archives and stores that the user names, and what a record may say of them."""

import json
import re
import zipfile
from pathlib import Path

import pytest
from helpers import row, trainer
from hypothesis import given
from hypothesis import strategies as st
from store_server import s3

from videor1_trl import TGRPOConfig, load_video, load_video_r1
from videor1_trl.data.placing import read_video
from videor1_trl.data.records import resolve_path
from videor1_trl.generation.requests import GenerationSettings, identity_and_notes
from videor1_trl.media import stores
from videor1_trl.media import video as video_module
from videor1_trl.media.addresses import is_within
from videor1_trl.media.frame_cache import FrameCache
from videor1_trl.media.limits import Limits
from videor1_trl.scripts import ask, cache_media, evaluate, generate_cot, train_sft, train_tgrpo


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("v.zip::clips/./x.mp4", "/r", "/r/v.zip::clips/x.mp4"),
        ("more/../v.TAR::x.mp4", "/r", "/r/v.TAR::x.mp4"),
        ("clips\\x.mp4", "/r/v.zip", "/r/v.zip::clips/x.mp4"),
        ("clips/../x.mp4", "s3://b/v", "s3://b/v/x.mp4"),
        ("v.zip::x.mp4", "s3://b", "s3://b/v.zip::x.mp4"),
        ("x.mp4", "s3://b/v.zip", "s3://b/v.zip::x.mp4"),
        ("a b?.mp4", "https://h/v", "https://h/v/a%20b%3F.mp4"),
        ("odd::name.mp4", "/r", "/r/odd::name.mp4"),
    ],
)
def test_a_record_names_a_file_or_a_member_under_root(path, root, expected):
    assert resolve_path(path, root) == expected


@pytest.mark.parametrize("root", ["/r", "/r/v.zip", "s3://b/v", "s3://b/v.zip", "https://h/v"])
@pytest.mark.parametrize(
    "path",
    ["../x.mp4", "a/../../x.mp4", "/x.mp4", "s3://other/x.mp4", "https://h/v/x.mp4", "file:///x.mp4", "C:\\x.mp4", "a\0.mp4", ".",
     "v.zip::../x.mp4", "v.zip::", "v.zip::/x.mp4", "v.zip::w.zip::x.mp4"],
)  # fmt: skip
def test_a_record_reaches_nothing_else(path, root):
    with pytest.raises(
        ValueError, match="names no |leaves root|is absolute|is a URL|names a drive|null character|within another"
    ):
        resolve_path(path, root)


PIECES = st.sampled_from(["..", ".", "a", "v.zip", "v.zip::", "::", "", "s3:", "@", "%2e%2e", "x.mp4", "?", "#"])


@given(
    path=st.lists(PIECES, min_size=1).map("/".join) | st.text(),
    root=st.sampled_from(["s3://b/v", "https://h/v", "s3://b/v.zip"]),
)
def test_no_path_leaves_its_store(path, root):
    try:
        address = resolve_path(path, root)
    except ValueError:
        return
    assert is_within(address, [root]) and address.count("://") == 1


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("concat://x", "knows no concat://"),
        ("https://me:hidden@h/v", "a name or a password"),
        ("https://h/v?token=hidden", "a query"),
        ("file:///v", "a folder of this machine"),
    ],
)
def test_a_root_that_cannot_be_read_from_is_refused_at_once(tmp_path, root, said):
    file = tmp_path / "r.json"
    file.write_text("[]")
    with pytest.raises(ValueError, match=rf"root \(.*{re.escape(said)}") as caught:
        load_video_r1(file, root)
    assert "hidden" not in str(caught.value)


def test_an_archive_as_root_must_be_there(tmp_path):
    file = tmp_path / "r.json"
    file.write_text("[]")
    with pytest.raises(ValueError, match="v.zip.* is not a folder"):
        load_video_r1(file, tmp_path / "v.zip")


@pytest.mark.parametrize("make", [TGRPOConfig, GenerationSettings])
def test_stores_are_checked_and_reach_the_reading(tmp_path, make):
    arguments = {} if make is GenerationSettings else {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False}
    found = make(**arguments, media_stores=["s3://b/"]).video_settings["limits"]
    assert found == Limits(stores=("s3://b",))
    with pytest.raises(ValueError, match="media_stores: .*a name or a password"):
        make(**arguments, media_stores=["https://me:hidden@h"])


def test_a_run_goes_on_where_its_media_have_moved():
    one, other = (
        identity_and_notes({"settings": vars(GenerationSettings(media_stores=[store], media_cache_dir=store))})[0]
        for store in ("s3://a", "s3://b")
    )
    assert one == other and one["settings"]["video_fps"] == 2.0


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setattr(stores, "_systems", {})
    stores._known.clear()
    with s3(monkeypatch) as server:
        yield server


@pytest.fixture
def reads(monkeypatch):
    found, real = [], video_module.read_source
    monkeypatch.setattr(
        video_module, "read_source", lambda data, name, *args, **more: found.append(name) or real(data, name, *args, **more)
    )  # fmt: skip
    return found


def test_frames_of_a_store_are_kept_until_its_file_changes(bucket, videos, tmp_path, reads):
    cache = FrameCache(tmp_path, 2**30)
    settings = GenerationSettings(media_stores=["s3://videos"]).video_settings

    def read():
        stores._known.clear()  # as a later run
        return read_video("s3://videos/a.mp4", settings, load_video, None, cache)

    bucket.put("a.mp4", videos("h264.mp4").read_bytes())
    for _ in range(2):
        read()
    assert len(reads) == 1
    bucket.put("a.mp4", videos("hevc.mp4").read_bytes())
    read()
    assert len(reads) == 2
    assert not any(b"AKIASECRET" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_bytes_of_a_streamed_dataset_are_read_and_kept(models, media, tmp_path, reads):
    """A column of bytes, and one of `{"bytes", "path"}`, as `datasets` streams them from parquet."""
    import datasets

    data = [open(path, "rb").read() for path in media["videos"][:2]]
    columns = {"plain": data, "named": [{"bytes": each, "path": f"{n}.mp4"} for n, each in enumerate(data)]}
    datasets.Dataset.from_dict(columns).to_parquet(str(tmp_path / "a.parquet"))
    streamed = datasets.load_dataset("parquet", data_files=str(tmp_path / "a.parquet"), split="train", streaming=True)
    options = {"media_cache_dir": str(tmp_path / "kept"), "video_cache_gb": 0.0, "video_num_workers": 0}
    for column in ("plain", "named"):
        rows = [row("which?", video=each[column]) for each in streamed]
        assert isinstance(rows[0]["video"], bytes if column == "plain" else dict)
        loader = trainer(models(), rows, tmp_path / column, **options).batch_loader
        for _ in range(2):
            found = loader.load(rows, 0, 1, 0, step=1)
            assert len(found) == 2
    assert len(reads) == 2  # by their content: the second column's are those of the first


# ------------------------------------------------------------------------------------------------------------- the commands


@pytest.fixture
def on_bucket(bucket, media, models, tmp_path):
    """Records whose videos lie in a bucket, one of them in an archive there; the flags of commands on it."""

    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as file:
        file.write(media["videos"][1], "in/b.mp4")
    bucket.put("data/a.mp4", Path(media["videos"][0]).read_bytes())
    bucket.put("data/clips.zip", (tmp_path / "clips.zip").read_bytes())
    fields = {"problem": "?", "data_type": "video", "problem_type": "free-form", "solution": "<answer>A</answer>"}
    records = tmp_path / "records.json"
    records.write_text(json.dumps([{**fields, "path": path} for path in ("a.mp4", "clips.zip::in/b.mp4")]))
    return ["--dataset", records, "--data_root", "s3://videos/data", "--model_name_or_path", models().path]


def test_commands_read_a_bucket_that_is_named_as_root(bucket, on_bucket, tmp_path, run_script, capsys):
    flags = [
        *on_bucket,
        "--output_dir",
        tmp_path / "eval",
        "--max_new_tokens",
        4,
        "--dtype",
        "float32",
    ]
    with pytest.raises(SystemExit) as ended:
        run_script(evaluate, [*flags, "--dry_run"], {})
    assert ended.value.code == 0 and "Every video is there" in capsys.readouterr().out
    run_script(evaluate, flags, {})
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    assert "AKIASECRET" not in json.dumps(summary)
    training = ["--use_cpu", "True", "--bf16", "False", "--report_to", "none", "--per_device_train_batch_size", 8]
    training += [
        *on_bucket,
        "--output_dir",
        tmp_path / "out",
        "--num_generations",
        8,
        "--media_cache_dir",
        tmp_path / "kept",
    ]
    bucket.reset()
    assert "2 videos are kept" in run_script(cache_media, training, {})
    bucket.reset()
    assert "2 videos are kept" in run_script(cache_media, training, {})
    assert {method for method, *_ in bucket.asked} <= {"HEAD", "GET"} and bucket.sent < 2**20


@pytest.mark.slow
def test_ask_rationales_and_the_cold_start_read_a_bucket_too(bucket, on_bucket, tmp_path, run_script):
    model = on_bucket[-2:] + ["--dtype", "float32"]
    one = ["--video", "s3://videos/data/a.mp4", "--question", "Which way?", "--max_new_tokens", 4]
    run_script(ask, [*model, *one], {})  # what the user names on the command line is named
    assert any("a.mp4" in path for _, path, _ in bucket.asked)
    cot = ["--output_dir", tmp_path / "cot", "--max_new_tokens", 4, "--num_samples", 1]
    run_script(generate_cot, [*on_bucket, *cot, "--dtype", "float32"], {})
    entries = [json.loads(line) for line in (tmp_path / "cot" / "completions.jsonl").read_text().splitlines()]
    assert [each["error"] for each in entries if "key" in each] == [None, None]
    records = json.loads(Path(on_bucket[1]).read_text())
    taught = tmp_path / "taught.json"
    taught.write_text(json.dumps([{**each, "process": "<think>It goes left.</think>"} for each in records]))
    flags = [
        "--dataset",
        taught,
        *on_bucket[2:],
        "--output_dir",
        tmp_path / "sft",
        "--max_steps",
        1,
        "--use_cpu",
        "True",
    ]
    flags += ["--bf16", "False", "--report_to", "none", "--save_strategy", "no", "--dtype", "float32"]
    bucket.reset()
    run_script(train_sft, flags, {})
    assert any("a.mp4" in path for _, path, _ in bucket.asked)


@pytest.mark.slow
def test_training_reads_a_bucket(bucket, on_bucket, tmp_path, run_script):
    flags = [*on_bucket, "--output_dir", tmp_path / "out", "--num_generations", 4, "--per_device_train_batch_size", 4]
    flags += [
        "--use_cpu",
        "True",
        "--bf16",
        "False",
        "--report_to",
        "none",
        "--max_steps",
        1,
        "--max_completion_length",
        4,
    ]
    said = run_script(
        train_tgrpo, [*flags, "--video_max_pixels", 1568, "--save_strategy", "no", "--dtype", "float32"], {}
    )
    assert said.splitlines()[-1] == f"Saved to {tmp_path / 'out'}."
