import errno
import os

import pytest
import torch
from safetensors.torch import save_file

from helpers.runtime.files import atomic_path, sweep_partial, write_text


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
