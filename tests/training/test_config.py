import pytest

from hf_gpt.cli.finetune import ARGUMENTS as FINETUNE_TYPES
from hf_gpt.cli.options import command_options
from hf_gpt.data.arguments import DataArguments
from hf_gpt.errors import ConfigError
from hf_gpt.option_values import parse_mapping
from hf_gpt.training.arguments.model import ModelArguments
from hf_gpt.training.arguments.sampling import SamplingArguments
from hf_gpt.training.settings import (
    built_in_recipes,
    check_option_names,
    find_recipe,
    load_settings,
    read_recipe,
    settings_to_yaml,
    split_config_option,
)
from hf_gpt.training.tasks import RECIPES_OF_TASKS, TASKS
from hf_gpt.training.training_arguments import HfGptTrainingArguments


TYPES = [ModelArguments, DataArguments, SamplingArguments, HfGptTrainingArguments]


@pytest.fixture
def names():
    return [option.name for options in command_options(TYPES[:-1]).values() for option in options]


def load(argv=(), recipe=None):
    return load_settings(list(argv), TYPES, recipe, "recipe.yaml" if recipe else None)


def test_options_read_from_the_source_are_those_of_the_classes(names):
    from transformers import HfArgumentParser

    parser = HfArgumentParser(TYPES)
    assert sorted(names) == sorted({action.dest for action in parser._actions if action.dest != "help"} | {"config"})


def test_options_read_from_the_source_have_help_and_default():
    options = {o.name: o for group in command_options(TYPES[:-1]).values() for o in group}
    assert options["learning_rate"].default == "0.002"
    assert options["optimizer"].type == "muon|adamw"
    assert "gradient" in options["max_grad_norm"].help
    assert [name for name, option in options.items() if not option.help] == []


def test_defaults_then_recipe_then_command_line():
    recipe = {"learning_rate": "3e-4", "max_length": 64, "train_file": ["a.txt", "b.txt"], "bf16": False}
    _, data, _, training = load().arguments
    assert (training.learning_rate, data.max_length, data.train_file) == (2e-3, 512, ["tinyshakespeare"])
    _, data, _, training = load(recipe=recipe).arguments
    assert (training.learning_rate, data.max_length, data.train_file) == (3e-4, 64, ["a.txt", "b.txt"])
    _, data, _, training = load(["--max_length", "32", "--train_file", "c.txt"], recipe).arguments
    assert (training.learning_rate, data.max_length, data.train_file) == (3e-4, 32, ["c.txt"])


def test_hyphens_and_switches():
    _, data, _, training = load(["--max-length=16", "--dry_run", "--no_logging_first_step"]).arguments
    assert data.max_length == 16 and training.dry_run and not training.logging_first_step


def test_config_overrides_are_merged():
    recipe = {"config_overrides": {"hidden_size": 64, "num_hidden_layers": 2}}
    model_args = load(["--config_overrides", "num_hidden_layers=3,norm_eps=1e-5"], recipe).arguments[0]
    assert model_args.overrides == {"hidden_size": 64, "num_hidden_layers": 3, "norm_eps": 1e-5}


@pytest.mark.parametrize(
    ("text", "mapping"),
    [
        (None, {}),
        ("a=1, b=2.5,c=true,d=text", {"a": 1, "b": 2.5, "c": True, "d": "text"}),
        ('{"a": [1, 2], "b": null}', {"a": [1, 2], "b": None}),
    ],
)
def test_mappings(text, mapping):
    assert parse_mapping(text, "option") == mapping


def test_bad_mapping():
    with pytest.raises(ConfigError, match="--option: cannot read"):
        parse_mapping("hidden_size:3", "option")


def test_unknown_recipe_key_names_the_nearest(tmp_path, names):
    path = tmp_path / "mine.yaml"
    path.write_text("learning_rat: 1\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: unknown key 'learning_rat'; did you mean learning_rate\?"):
        read_recipe(path, names)


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [1\n", "just text", "a: 2001-99-99", "a: " + "[" * 4000])
def test_recipe_that_is_no_mapping(tmp_path, names, content):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        read_recipe(path, names)


def test_recipe_value_of_the_wrong_type_names_the_recipe():
    with pytest.raises(ConfigError, match=r"recipe\.yaml: .*max_length.*'many'"):
        load(recipe={"max_length": "many"})


@pytest.mark.parametrize(
    "argv",
    [["--max_length", "many"], ["--optimizer", "sgdm"], ["stray"], ["--decay_steps", "-1"], ["--warmup_steps", "-1"]],
)
def test_bad_command_line_values(argv):
    with pytest.raises(ConfigError):
        load(argv)


def test_contradictions():
    with pytest.raises(ConfigError, match="--optimizer adamw"):
        load(["--optim", "adafactor"])
    with pytest.raises(ConfigError, match="eval_strategy"):
        load(["--early_stopping_patience", "2"])
    assert load(["--optim", "adafactor", "--optimizer", "adamw"])


@pytest.mark.parametrize(
    ("metric", "is_better"), [("bits_per_byte", False), ("eval_bits_per_byte", False), ("loss", False), ("f1", True)]
)
def test_the_best_model_has_the_fewest_bits_per_byte(metric, is_better):
    steps = ["--eval_strategy", "steps", "--eval_steps", "2", "--save_strategy", "steps", "--save_steps", "2"]
    training = load([*steps, "--load_best_model_at_end", "--metric_for_best_model", metric]).arguments[3]
    assert training.greater_is_better is is_better


def test_unknown_option_names_the_nearest(names):
    with pytest.raises(ConfigError, match=r"--max_lenght; did you mean --max_length\?"):
        check_option_names(["--max-lenght", "3"], names)
    check_option_names(["--max-length", "3", "--no_bf16", "--max_steps=-1"], names)


@pytest.mark.parametrize("argv", [["texts.txt"], ["texts.txt", "--max_length", "16"]])
def test_an_argument_of_no_option_is_answered_before_the_heavy_imports(names, argv):
    with pytest.raises(ConfigError, match=r"'texts\.txt' belongs to no option: files to train on go to --train_file\."):
        check_option_names(argv, names)
    with pytest.raises(ConfigError, match="go to --train_file"):
        check_option_names(argv, ["train_file", "max_length"])


@pytest.mark.parametrize("argv", [["--max_length=16", "texts.txt"], ["--max_length", "16", "texts.txt", "more.txt"]])
def test_an_argument_of_no_option_among_others(argv):
    with pytest.raises(ConfigError, match=r"'texts\.txt' belongs to no option: files to train on go to --train_file\."):
        load(argv)


def test_config_option_is_taken_out():
    assert split_config_option(["--a", "1", "--config", "x", "--b"]) == ("x", ["--a", "1", "--b"])
    assert split_config_option(["--config=y"]) == ("y", [])
    with pytest.raises(ConfigError, match="needs a value"):
        split_config_option(["--config"])


@pytest.mark.parametrize("name", sorted({*built_in_recipes()} - {*TASKS, *RECIPES_OF_TASKS.values()}))
def test_built_in_recipes_of_pretraining_load(name, names):
    assert load(recipe=read_recipe(find_recipe(name), names))


@pytest.mark.parametrize("name", TASKS)
def test_built_in_recipes_of_tasks_load(name):
    types = [*FINETUNE_TYPES, HfGptTrainingArguments]
    names = [option.name for group in command_options(FINETUNE_TYPES).values() for option in group]
    recipe = find_recipe(RECIPES_OF_TASKS.get(name, name))
    settings = load_settings([], types, read_recipe(recipe, names), recipe)
    assert settings.values["task"] == name and settings.arguments[0].overrides["hidden_dropout"] > 0


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean demo\?"):
        find_recipe("demmo")


def test_written_settings_load_to_the_same(tmp_path, names):

    recipe = {
        "config_overrides": {"hidden_size": 64},
        "lr_scheduler_kwargs": {"decay_type": "cosine"},
        "sample_prompts": ["a\n", "", "# b"],
        "eval_steps": None,
        "bf16": False,
    }
    settings = load(["--max_steps", "5"], recipe)
    path = tmp_path / "written.yaml"
    path.write_text(settings_to_yaml(settings, "A header"), encoding="utf-8")
    again = load(recipe=read_recipe(path, names))
    assert again.arguments[0].overrides == {"hidden_size": 64}
    assert again.arguments[2] == settings.arguments[2]
    assert again.arguments[3].to_dict() == settings.arguments[3].to_dict()
    assert "do_predict" not in path.read_text()


def test_written_settings_hold_what_is_the_library_s_default_but_not_ours(tmp_path, names):

    argv = "--learning_rate 5e-5 --weight_decay 0 --per_device_train_batch_size 8 --lr_scheduler_type linear"
    settings = load([*argv.split(), "--warmup_steps", "0", "--logging_steps", "500"])
    path = tmp_path / "written.yaml"
    path.write_text(settings_to_yaml(settings), encoding="utf-8")
    again = load(recipe=read_recipe(path, names)).arguments[3]
    assert again.learning_rate == 5e-5 and again.per_device_train_batch_size == 8
    assert again.to_dict() == settings.arguments[3].to_dict()
