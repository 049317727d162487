"""Files that are whole or not there, also where a disk is full."""

import os
import stat

import pytest
from helpers import full_disk

from jaxgmm.files._whole import check_folder, write

FILES = {"one": "small", "two": b"large" * 1000}


def test_all_or_none(tmp_path):
    folder = tmp_path / "made" / "here"
    with full_disk(1000), pytest.raises(OSError, match="two") as error:
        write(folder, FILES)
    assert error.value.filename == str(folder / "two")
    assert not list(tmp_path.iterdir())
    write(folder, FILES)
    assert (folder / "one").read_text() == "small"
    assert (folder / "two").read_bytes() == FILES["two"]
    assert sorted(os.listdir(folder)) == ["one", "two"]


def test_what_was_there_stays(tmp_path):
    (tmp_path / "one").write_text("before")
    with full_disk(1000), pytest.raises(OSError, match="two"):
        write(tmp_path, FILES)
    assert (tmp_path / "one").read_text() == "before"
    assert os.listdir(tmp_path) == ["one"]


def test_permissions_links_and_pipes_are_the_users(tmp_path):
    (tmp_path / "plain").write_text("")
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "one").symlink_to(tmp_path / "elsewhere")
    write(tmp_path, {"one": "through", "plain2": "", os.devnull: "gone"})
    assert (tmp_path / "one").is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "through"
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    assert (tmp_path / "plain2").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_is_tried_and_not_left(tmp_path):
    check_folder(tmp_path / "made" / "here")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        check_folder(tmp_path / "file")
    with full_disk(0):
        check_folder(tmp_path)  # an empty file fits
