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
