import errno
import os
import tempfile
import threading
import time
from multiprocessing import get_context

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from helpers.errors import UserError
from helpers.runtime import files
from helpers.runtime.files import atomic_path, only_one, sweep_partial, write_text


def test_a_file_is_replaced_whole(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_is_replaced_whole(tmp_path):
    for content in ("old", "new"):
        with atomic_path(tmp_path / "folder") as partial:
            partial.mkdir()
            (partial / content).write_text(content)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "new"]


def test_a_pipe_is_written_to_and_stays(tmp_path):
    """As /dev/null must: as root a rename would make a file of it, for the whole system."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")  # as /dev/fd/63 of a shell's >(…) is one
    for name in ("pipe", "link"):
        end = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        write_text(tmp_path / name, "new")
        assert os.read(end, 9) == b"new"
        os.close(end)
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    write_text(tmp_path / "pipe", "new")
    assert (tmp_path / "pipe").read_text() == "new"


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_stood_there_still_stands_after_a_failure(tmp_path, failure):
    write_text(tmp_path / "a.txt", "old")

    def write_and_fail():
        with atomic_path(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise failure

    with pytest.raises(type(failure)):
        write_and_fail()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        Exception("No space left on device (os error 28)"),  # what tokenizers raises
    ],
)
def test_a_full_disk_is_one_error_that_names_the_file(tmp_path, failure):
    def write_and_fail():
        with atomic_path(tmp_path / "folder") as partial:
            partial.mkdir()
            raise failure

    with pytest.raises(OSError, match="No space left on device") as caught:
        write_and_fail()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "folder"))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_swept(tmp_path):
    (tmp_path / ".a.txt.partial").write_text("half")
    (tmp_path / ".folder.partial").mkdir()
    (tmp_path / ".hidden").write_text("somebody's own")
    assert sweep_partial(tmp_path) == [".a.txt.partial", ".folder.partial"]
    assert [path.name for path in tmp_path.iterdir()] == [".hidden"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_are_as_open_as_the_umask_says(tmp_path, umask):
    """safetensors makes files that only their owner can read, so nobody else could load them from a shared disk."""
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "folder") as partial:
            partial.mkdir()
            save_file({"a": torch.zeros(1)}, partial / "model.safetensors")
        write_text(tmp_path / "a.txt", "text")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    for file in (tmp_path / "folder" / "model.safetensors", tmp_path / "a.txt"):
        assert file.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.fixture
def locks(tmp_path, monkeypatch):
    """A folder for temporary files that no other process uses."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(files, "POLL", 0.001)
    return folder


def test_a_lock_leaves_no_file(locks, tmp_path):
    for name in ("a", "b"):
        with only_one(tmp_path / name, "training", wait=False):
            assert len(list(locks.iterdir())) == 1
    with pytest.raises(ValueError, match="within"), only_one(tmp_path, "training"):
        raise ValueError("within")
    assert list(locks.iterdir()) == []


def test_one_at_a_time_though_each_removes_the_file(locks, tmp_path):
    inside, rounds, met = [], [], []

    def work() -> None:
        for _ in range(50):
            with only_one(tmp_path, "training"):
                inside.append(1)
                met.append(len(inside))
                time.sleep(0)  # let another thread try
                inside.pop()
                rounds.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(rounds) == 200
    assert set(met) == {1}
    assert list(locks.iterdir()) == []


def test_a_file_that_was_removed_between_opening_and_locking_is_no_lock(locks, tmp_path, monkeypatch):
    path, opened = locks / "a.lock", []
    real = os.open

    def open_late(*arguments, **choices):
        handle = real(*arguments, **choices)
        opened.append(handle)
        if len(opened) == 1:
            path.unlink()  # as its holder does, who then lets others lock a new one
        return handle

    monkeypatch.setattr(os, "open", open_late)
    handle = files._lock(path)
    assert len(opened) == 2
    assert os.path.samestat(os.fstat(handle), path.stat())
    os.close(handle)


def hold(folder, temporary, begun):
    tempfile.tempdir = temporary
    with only_one(folder, "training"):
        begun.set()
        time.sleep(60)


def test_a_killed_process_frees_its_lock(locks, tmp_path):
    context = get_context("fork")
    begun = context.Event()
    process = context.Process(target=hold, args=(tmp_path, str(locks), begun))
    process.start()
    assert begun.wait(30)
    with pytest.raises(UserError, match="another process is training in"), only_one(tmp_path, "training", wait=False):
        pass
    process.kill()
    process.join()
    with only_one(tmp_path, "training", wait=False):
        pass
    assert list(locks.iterdir()) == []
