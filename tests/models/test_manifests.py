"""A checkpoint is whole or it is not taken: files that are missing, cut, changed or never written are named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videor1_trl.models import manifests
from videor1_trl.models.manifests import (
    check_whole,
    fault_of,
    is_loadable,
    missing_part,
    newest_whole,
    to_go_on_from,
    write_manifest,
)


FILES = {
    "model.safetensors": b"w" * 5000,
    "optimizer.pt": b"o" * 3000,
    "scheduler.pt": b"s",
    "rng_state.pth": b"r",
    "trainer_state.json": b"{}",
    "global_step3/rank_0.pt": b"z" * 10,
}


def checkpoint(folder, files=FILES, manifest=True):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    if manifest:
        write_manifest(folder, step=3)
    return folder


def test_a_whole_checkpoint_has_no_fault_and_its_manifest_names_every_file(tmp_path):
    assert fault_of(checkpoint(tmp_path)) is None
    written = json.loads((tmp_path / "manifest.json").read_text())
    assert written["step"] == 3 and written["files"].keys() == FILES.keys()
    assert written["files"]["optimizer.pt"]["size"] == 3000
    write_manifest(tmp_path)  # a folder that is written to again
    assert fault_of(tmp_path) is None


@pytest.mark.parametrize("name", FILES)
def test_each_file_that_is_missing_cut_or_changed_is_named(tmp_path, name):
    path = checkpoint(tmp_path) / name
    path.write_bytes(FILES[name][:-1])
    assert name in fault_of(tmp_path) and "bytes of" in fault_of(tmp_path)
    path.write_bytes(FILES[name][:-1] + b"?")
    assert fault_of(tmp_path) == f"the bytes of its {name} are not those that were written"
    path.unlink()
    assert fault_of(tmp_path) == f"its {name} is missing"


@pytest.mark.parametrize("manifest", [None, "", "{", "[]", '{"files": 3}', "{}"])
def test_without_a_readable_manifest_it_is_not_whole(tmp_path, manifest):
    checkpoint(tmp_path, manifest=False)
    if manifest is None:
        assert "was not written to its end" in fault_of(tmp_path)
        return
    (tmp_path / "manifest.json").write_text(manifest)
    assert "manifest.json cannot be read" in fault_of(tmp_path)


def test_the_newest_whole_one_is_found_and_the_others_are_said_with_their_faults(tmp_path):
    for step in (2, 10, 9):
        checkpoint(tmp_path / f"checkpoint-{step}")
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-10", {})  # by number, not by name
    checkpoint(tmp_path / "checkpoint-11", manifest=False)
    (tmp_path / "checkpoint-10" / "optimizer.pt").unlink()
    (tmp_path / "checkpoint-best").mkdir()
    path, passed = newest_whole(tmp_path)
    assert path == tmp_path / "checkpoint-9" and list(passed) == ["checkpoint-11", "checkpoint-10"]
    assert "no manifest.json" in passed["checkpoint-11"] and passed["checkpoint-10"] == "its optimizer.pt is missing"
    assert newest_whole(tmp_path / "none") == (None, {})


@pytest.mark.parametrize("part", ["trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_what_a_checkpoint_of_another_trainer_lacks_is_named(tmp_path, part):
    files = {name: data for name, data in FILES.items() if "/" not in name}
    assert missing_part(checkpoint(tmp_path / "whole", files, manifest=False)) is None
    del files[part]
    assert missing_part(checkpoint(tmp_path / "lacking", files, manifest=False)) == part


def test_weights_and_shards_count_in_all_their_forms(tmp_path):
    rest = {"trainer_state.json": b"{}", "scheduler.pt": b"s", "rng_state_0.pth": b"r", "rng_state_1.pth": b"r"}
    for number, names in enumerate(
        (
            ["optimizer.bin", "adapter_model.safetensors"],
            ["optimizer_0/a.distcp", "pytorch_model_fsdp_0/a.distcp"],
            ["optimizer.pt", "model-00001-of-00002.safetensors"],
        )
    ):
        assert missing_part(checkpoint(tmp_path / f"{number}", rest | dict.fromkeys(names, b"x"), False)) is None
    assert missing_part(checkpoint(tmp_path / "none", rest | {"optimizer.pt": b"o"}, False)) == "weights"
    deepspeed = {"trainer_state.json": b"{}", "rng_state_0.pth": b"r", "global_step4/mp_rank_00_model_states.pt": b"x"}
    assert missing_part(checkpoint(tmp_path / "zero", deepspeed, False)) is None


@given(place=st.integers(0, 10**6), size=st.integers(10**5, 10**6))
def test_a_large_file_is_checked_at_its_end_and_all_over_its_length(tmp_path_factory, place, size):
    folder = tmp_path_factory.mktemp("large")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifests, "SMALL", 1000)
        patch.setattr(manifests, "CHUNK", size // 64 + 1)  # so that the samples cover the file
        path = folder / "model.safetensors"
        path.write_bytes(b"w" * size)
        write_manifest(folder)
        data = bytearray(b"w" * size)
        data[place % size] = ord("x")
        path.write_bytes(data)
        assert "are not those that were written" in fault_of(folder)


def test_going_on_says_what_was_passed_over_and_where_nothing_is_whole_what_is_wrong(tmp_path):
    checkpoint(tmp_path / "checkpoint-2")
    assert to_go_on_from(tmp_path) == (str(tmp_path / "checkpoint-2"), "")
    checkpoint(tmp_path / "checkpoint-4", manifest=False)
    found, said = to_go_on_from(tmp_path)
    assert found == str(tmp_path / "checkpoint-2")
    assert (
        said
        == f"Going on from {found}. Passed over: checkpoint-4: it has no manifest.json, so it was not written to its end."
    )
    (tmp_path / "checkpoint-2" / "scheduler.pt").unlink()
    with pytest.raises(
        ValueError, match="there is no whole checkpoint in .* checkpoint-2: its scheduler.pt is missing"
    ):
        to_go_on_from(tmp_path)


def test_a_named_checkpoint_is_whole_or_without_a_manifest_and_complete(tmp_path):
    assert check_whole(checkpoint(tmp_path / "whole")) == ""
    files = {name: data for name, data in FILES.items() if "/" not in name}
    assert "cannot be known to be whole" in check_whole(checkpoint(tmp_path / "old", files, manifest=False))
    (tmp_path / "old" / "optimizer.pt").unlink()
    with pytest.raises(
        ValueError, match="is no whole checkpoint: its optimizer.pt is missing, and it has no manifest"
    ):
        check_whole(tmp_path / "old")
    (tmp_path / "whole" / "optimizer.pt").write_bytes(b"o")
    with pytest.raises(ValueError, match="is no whole checkpoint: its optimizer.pt has 1 bytes of 3,000"):
        check_whole(tmp_path / "whole")
    with pytest.raises(ValueError, match="is no folder"):
        check_whole(tmp_path / "none")


@pytest.mark.parametrize(
    "name, loads",
    [
        ("model.safetensors", True),
        ("model-00001-of-00002.safetensors", True),
        ("adapter_model.safetensors", True),
        ("pytorch_model.bin", True),
        ("zero_to_fp32.py", False),
        ("global_step2/zero_pp_rank_0_mp_rank_00_model_states.pt", False),
        ("config.json", False),
    ],
)
def test_a_folder_loads_where_it_holds_weights(tmp_path, name, loads):
    checkpoint(tmp_path, {name: b"x"}, manifest=False)
    assert is_loadable(tmp_path) == loads
