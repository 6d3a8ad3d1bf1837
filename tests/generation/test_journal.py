"""The journal of completions: what a kill at any byte leaves, several processes, and runs that are not the same."""

import contextlib
import json
import os
import resource
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videor1_trl.generation.journal import Journal, JournalInUse, read_lines, write_lines


def run(folder, entries=(), identity=None, **options):
    with Journal(folder, identity or {"model": "m"}, **options) as journal:
        for entry in entries:
            journal.append(entry)
        return journal


def test_what_was_written_is_there_at_the_next_start(tmp_path):
    run(tmp_path, [{"key": "a", "text": "ä\n"}, {"key": "b", "text": None, "error": "no such file"}])
    with Journal(tmp_path, {"model": "m"}) as journal:
        assert journal.entries() == {
            "a": {"key": "a", "text": "ä\n"},
            "b": {"key": "b", "text": None, "error": "no such file"},
        }
        assert journal.pending(["a", "b", "c"]) == ["c"]
        assert journal.pending(["a", "b", "c"], retry_errors=True) == ["b", "c"]
        journal.append({"key": "b", "text": "mended"})
    assert journal.entries()["b"]["text"] == "mended"


@given(st.integers(0, 10_000))
def test_a_kill_at_any_byte_loses_at_most_the_line_it_tore(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("journal")
    keys = [f"key {number} é" for number in range(6)]
    path = run(folder, [{"key": key, "text": key * 3} for key in keys]).path
    content = path.read_bytes()
    path.write_bytes(content[: cut % (len(content) + 1)])
    whole = path.read_bytes().count(b"\n")
    with Journal(folder, {"model": "m"}) as journal:
        pending = journal.pending(keys)
        assert pending == keys[max(0, whole - 1) :]  # the first line is the session's
        for key in pending:
            journal.append({"key": key, "text": key * 3})
    assert [entry["key"] for entry in read_lines(path) if "key" in entry] == keys
    assert journal.entries() == {key: {"key": key, "text": key * 3} for key in keys}


def test_a_killed_process_leaves_what_it_had_written(tmp_path):
    code = (
        "import sys, time\nfrom videor1_trl.generation.journal import Journal\n"
        "with Journal(sys.argv[1], {}) as journal:\n"
        "    for key in 'abc':\n        journal.append({'key': key})\n"
        "    print('written', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "written\n"
    with pytest.raises(JournalInUse, match="is written by another process"):
        run(tmp_path, identity={"other": 1})
    process.kill()
    process.wait()
    process.stdout.close()
    with Journal(tmp_path, {}) as journal:  # the lock went with the process
        assert journal.pending("abcd") == ["d"]


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_processes_share_the_keys_and_see_all_entries(tmp_path, world_size):
    keys = [str(number) for number in range(40)]
    for rank in range(world_size):
        with Journal(tmp_path, {}, rank=rank, world_size=world_size) as journal:
            for key in journal.pending(keys):
                journal.append({"key": key, "rank": rank})
    with Journal(tmp_path, {}, rank=0, world_size=3) as journal:  # another number of processes goes on
        assert sorted(journal.entries(), key=int) == keys
        assert journal.pending(keys) == []
    written = [entry["key"] for path in tmp_path.glob("*.jsonl") for entry in read_lines(path) if "key" in entry]
    assert sorted(written, key=int) == keys


def test_ranks_come_from_the_launcher(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(tmp_path).path.name == "completions-001-of-002.jsonl"


def test_another_run_is_refused_with_what_differs(tmp_path):
    identity = {"model": "m", "settings": {"temperature": 0.0, "seed": 1}}
    run(tmp_path, [{"key": "a"}], identity)
    with pytest.raises(
        ValueError, match=r"settings\.temperature: 0\.0 there, 1\.0 now\). Give this run another folder"
    ):
        run(tmp_path, [], {"model": "m", "settings": {"temperature": 1.0, "seed": 1}})
    with pytest.raises(ValueError, match="model: 'm' there, None now"):
        run(tmp_path, [], {"settings": identity["settings"]})
    assert run(tmp_path, [], identity).entries() == {"a": {"key": "a"}}


def test_what_may_change_is_kept_on_record(tmp_path):
    for device in ("cpu", "cpu", "H100"):
        journal = run(tmp_path, notes={"device": device})
    assert [session["notes"] for session in journal.sessions()] == [{"device": "cpu"}, {"device": "H100"}]


@pytest.mark.parametrize("sizes", [(2, 1, 2), (1, 2, 1), (3, 1, 3)])
def test_an_answer_wins_over_an_error_whichever_file_is_written_last(tmp_path, sizes):
    keys = [str(number) for number in range(8)]
    for turn, world_size in enumerate(
        sizes
    ):  # an error first, the answer in another file, and a start of the first again
        for rank in range(world_size):
            with Journal(tmp_path, {}, rank=rank, world_size=world_size) as journal:
                for key in journal.pending(keys, retry_errors=True):
                    journal.append({"key": key, "error": "gone" if turn == 0 else None})
    assert {entry["error"] for entry in journal.entries().values()} == {None}
    with Journal(tmp_path, {}) as journal:
        assert journal.pending(keys, retry_errors=True) == []


@contextlib.contextmanager
def full_disk(size):
    """Within the context no file can grow beyond so many bytes: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("is_ended", [False, True])
def test_a_full_disk_is_named_keeps_what_was_written_and_lets_go_of_the_file(tmp_path, is_ended):
    whole = run(tmp_path, [{"key": "a"}]).path.stat().st_size
    with full_disk(whole + 200):
        with pytest.raises(OSError, match="the entry 'b' is not kept. Free some space and start again"):
            with Journal(tmp_path, {"model": "m"}) as journal:
                journal.append({"key": "b", "text": "x" * 1000})
        if is_ended:  # not even a session can be written
            with full_disk(whole + 10), pytest.raises(OSError, match="the entry 'session' is not kept"):
                run(tmp_path)
    journal = run(tmp_path, [{"key": "b", "text": "y"}])
    assert journal.entries() == {"a": {"key": "a"}, "b": {"key": "b", "text": "y"}}


def test_no_lock_stays_behind_and_one_that_does_is_no_obstacle(tmp_path):
    (tmp_path / "completions.jsonl.lock").touch()  # of a process that was killed
    with Journal(tmp_path, {}) as journal:
        assert (tmp_path / "completions.jsonl.lock").exists()
        with pytest.raises(JournalInUse), Journal(tmp_path, {}):
            pass
        assert (tmp_path / "completions.jsonl.lock").exists()
        with pytest.raises(JournalInUse), Journal(tmp_path, {}):
            pass
        journal.append({"key": "a"})
    assert os.listdir(tmp_path) == ["completions.jsonl"]
    with pytest.raises(ValueError, match="another run"), Journal(tmp_path, {"other": 1}):
        pass
    assert os.listdir(tmp_path) == ["completions.jsonl"]


def test_a_lock_whose_file_is_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """Whoever comes next would take a lock of the same name, and both would write."""
    journal = Journal(tmp_path, {})
    acquire, calls = journal._lock.acquire, []

    def acquired(**options):
        acquire(**options)
        calls.append(1)
        if len(calls) == 1:
            os.unlink(journal._lock.lock_file)

    monkeypatch.setattr(journal._lock, "acquire", acquired)
    with journal, pytest.raises(JournalInUse), Journal(tmp_path, {}):
        pass
    assert len(calls) == 2


def test_half_a_surrogate_pair_does_not_end_a_run(tmp_path):
    journal = run(tmp_path, [{"key": "a", "text": "\ud83d is half"}])
    assert journal.entries()["a"]["text"] == "? is half"
    write_lines(tmp_path / "results.jsonl", [{"text": "\ud83d"}])
    assert list(read_lines(tmp_path / "results.jsonl")) == [{"text": "?"}]


def test_a_file_of_that_name_that_is_no_journal_is_refused(tmp_path):
    (tmp_path / "completions.jsonl").write_text('{"key": "a"}\n')
    with pytest.raises(ValueError, match=r"completions\.jsonl is no journal of completions"):
        run(tmp_path)


def test_a_broken_line_is_named(tmp_path):
    path = run(tmp_path, [{"key": "a"}]).path
    path.write_text(path.read_text() + "{oh\n" + json.dumps({"key": "b"}) + "\n")
    with pytest.raises(ValueError, match=r"completions\.jsonl, line 3: not JSON"):
        run(tmp_path)
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1: no JSON object"):
        run(tmp_path)


def test_an_entry_needs_its_key(tmp_path):
    with Journal(tmp_path, {}) as journal, pytest.raises(ValueError, match="needs a 'key', found text"):
        journal.append({"text": "a"})
    with pytest.raises(ValueError, match=r"rank \(2\) must be between 0 and world_size - 1 \(1\)"):
        Journal(tmp_path, {}, rank=2, world_size=2)


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "records.jsonl"
    write_lines(path, [{"a": "é"}])

    def broken():
        yield {"a": 1}
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_lines(path, broken())
    assert list(read_lines(path)) == [{"a": "é"}]
    assert os.listdir(tmp_path) == ["records.jsonl"]
