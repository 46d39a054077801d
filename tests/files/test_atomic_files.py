import os

import pytest

from hf_gpt.files.atomic_files import replaces_file, write_json, write_text


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError, match="full"), replaces_file(path) as draft:
        draft.write_text("half", encoding="utf-8")
        raise RuntimeError("the disk is full")
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path):
    path = write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text(encoding="utf-8") == '{\n "a": 1\n}\n'


def test_a_missing_folder_is_made(tmp_path):
    assert write_text(tmp_path / "new" / "a.txt", "text").is_file()


def test_a_link_stays_a_link(tmp_path):
    path, link = write_text(tmp_path / "a.txt", "old"), tmp_path / "link.txt"
    link.symlink_to(path)
    write_text(link, "new")
    assert link.is_symlink() and path.read_text(encoding="utf-8") == "new"


@pytest.mark.skipif(os.name == "nt", reason="no named pipes")
def test_a_pipe_is_written_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "text")
    assert os.read(reader, 9) == b"text" and pipe.is_fifo()
    os.close(reader)
