import json

import pytest

from hf_gpt.app.examples import QUESTIONS, STARTS, example_prompts, first_words


def run_of(tmp_path, **recipe):
    """The folder of a run's model."""
    (tmp_path / "model").mkdir(exist_ok=True)
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    return str(tmp_path / "model")


def test_a_chat_model_is_asked(tmp_path):
    assert example_prompts(str(tmp_path), True) == list(QUESTIONS) and len(QUESTIONS) == 4


@pytest.mark.parametrize("option", ["corpus", "train_file"])
def test_first_words_are_those_of_the_corpus(tmp_path, option):
    found = example_prompts(run_of(tmp_path, **{option: ["tinyshakespeare"]}), False)
    assert found[0] == "First Citizen:" and len(set(found)) == 4


def test_files_of_every_kind(tmp_path):
    rows = [f"{word} dogs sit on the grass by the street" for word in ("one", "two", "three", "four", "five")]
    expected = [" ".join(row.split()[:5]) for row in rows[:4]]
    (tmp_path / "lines.txt").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"words": row}) for row in rows), encoding="utf-8")
    assert example_prompts(run_of(tmp_path, corpus=str(tmp_path / "lines.txt")), False) == expected
    recipe = {"train_file": [str(tmp_path / "gone.txt"), str(tmp_path / "rows.jsonl")], "text_column": "words"}
    assert example_prompts(run_of(tmp_path, **recipe), False) == expected


@pytest.mark.parametrize("recipe", [{}, {"corpus": ["./gone.txt"]}, {"corpus": None}, {"corpus": 5}])
def test_without_a_corpus_there_is_a_list(tmp_path, recipe):
    assert example_prompts(run_of(tmp_path, **recipe), False) == list(STARTS)
    assert example_prompts("owner/name", False) == list(STARTS)


def test_a_broken_recipe_is_as_none(tmp_path):
    folder = run_of(tmp_path)
    for broken in ("a: [", "- 1", "\x00"):
        (tmp_path / "recipe.yaml").write_text(broken, encoding="utf-8")
        assert example_prompts(folder, False) == list(STARTS)


def test_all_first_words_differ():
    assert first_words(["a b\n\nthe man\n\nthe man\n\nx" * 3], 4) == ["a b", "the man", "xa b"]
