"""Every option of every dataclass says what a resumed run may do with it."""

import dataclasses

import pytest

from hf_gpt.adversarial.arguments import AdversarialArguments
from hf_gpt.adversarial.config import AdversarialConfig
from hf_gpt.cli import adversarial as adversarial_train
from hf_gpt.cli import finetune, pretrain
from hf_gpt.training.resumption.resume_options import CLASSES, Change, change_of
from hf_gpt.training.training_arguments import HfGptTrainingArguments


KINDS = {
    kind.__name__: kind
    for kind in (
        *pretrain.ARGUMENTS,
        *finetune.ARGUMENTS,
        *adversarial_train.ARGUMENTS,
        AdversarialArguments,
        HfGptTrainingArguments,
    )
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_option_has_one_class(kind):
    names = {field.name for field in dataclasses.fields(KINDS[kind]) if field.init}
    known = set(CLASSES[kind])
    # Of two dataclasses in one, the stricter class comes first.
    shared = {"per_device_train_batch_size", "gradient_accumulation_steps"} if kind == "AdversarialArguments" else set()
    assert names - known == set(), "say in resume_options.py what a resumed run may do with these"
    assert known - names == shared


def test_classes_are_those_that_the_docs_speak_of():
    training = CLASSES["HfGptTrainingArguments"]
    assert (
        training["max_steps"] is training["learning_rate"] is Change.SCHEDULE and training["save_steps"] is Change.MAY
    )
    assert training["seed"] is training["optimizer"] is Change.FIXED
    assert training["per_device_train_batch_size"] is Change.ROWS
    assert change_of("AdversarialConfig", "per_device_train_batch_size") is Change.FIXED
    assert change_of("AdversarialConfig", "save_steps") is Change.MAY
    for field in dataclasses.fields(AdversarialConfig):
        assert isinstance(change_of("AdversarialConfig", field.name), Change)


def test_a_new_option_is_asked_about():
    with pytest.raises(KeyError, match="learning_rat of"):
        change_of("HfGptTrainingArguments", "learning_rat")
