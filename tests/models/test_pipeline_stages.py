"""The library's pipeline stages, one after the other in this process: the logits of the whole model, or a refusal."""

import copy
import dataclasses

import pytest
import torch
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.distributed.pipeline_parallel import (
    PipelineIdentityLayer,
    PipelineStage,
    apply_pipeline_parallelism,
)

import hf_gpt
from hf_gpt import HfGptConfig, HfGptForCausalLM


SIZES = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "initializer_range": 0.3}
LEARNED = {"position_embedding_type": "learned", "norm_type": "layernorm", "norm_bias": True}
OPTIONS = {
    "rope": {},
    "learned": LEARNED,
    "none": {"position_embedding_type": "none"},
    "sliding": {"sliding_window": 3},
    "both": {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "capped": {"final_logit_softcapping": 3.0, "logit_scale": 0.5, "tie_word_embeddings": False, **LEARNED},
    "eager": {"attn_implementation": "eager", **LEARNED},
}


class Line:
    """What stages send each other."""

    def __init__(self):
        self.sent = self.logits = None


def make_stage(monkeypatch, rank, size, line):
    stage = PipelineStage.__new__(PipelineStage)
    stage.pp_rank, stage.pp_size = rank, size
    stage.pp_is_first_stage, stage.pp_is_last_stage = rank == 0, rank == size - 1

    def communicate(operation, *, tensor=None, shape=None, **kwargs):
        if operation == "send_forward":
            line.sent = tensor.clone()
            return None
        assert line.sent.shape == tuple(shape)
        return line.sent

    def broadcast(tensor, **kwargs):
        line.logits = tensor
        return tensor

    stage.communicate, stage.broadcast_from_last = communicate, broadcast
    return stage


def cut(monkeypatch, model, size):
    """A model that runs its copies' stages in their order; each has a cache of its own."""
    line, stages = Line(), []
    for rank in range(size):
        stage = make_stage(monkeypatch, rank, size, line)
        monkeypatch.setattr("transformers.distributed.pipeline_parallel.PipelineStage", lambda mesh, one=stage: one)
        stages.append(apply_pipeline_parallelism(copy.deepcopy(model), None))
    assert any(isinstance(layer, PipelineIdentityLayer) for layer in stages[0].model.layers)
    caches = [None] * size

    def run(**inputs):
        for rank, stage in enumerate(stages):
            caches[rank] = stage(**inputs, past_key_values=caches[rank]).past_key_values
        return line.logits

    return run


def make(options):
    torch.manual_seed(0)
    options = dict(options)
    implementation = options.pop("attn_implementation", None)
    model = HfGptForCausalLM(HfGptConfig(**{**SIZES, "num_hidden_layers": 3, **options})).eval()
    if implementation:
        model.set_attn_implementation(implementation)
    return model


@torch.no_grad()
@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_stages_give_the_logits_of_the_whole(monkeypatch, options, stages):
    model = make(options)
    ids = torch.randint(3, 40, (2, 7))
    mask = torch.tensor([[1] * 7, [0, 0, 0, 1, 1, 1, 1]])
    run = cut(monkeypatch, model, stages)
    cache = None
    # The prompts, two tokens, and one more: positions by the mask or by the cache.
    for begin, end in ((0, 4), (4, 6), (6, 7)):
        inputs = {"input_ids": ids[:, begin:end], "attention_mask": mask[:, :end], "use_cache": True}
        whole = model(**inputs, past_key_values=cache)
        cache, found = whole.past_key_values, run(**inputs)
        kept = mask[:, begin:end].bool()
        torch.testing.assert_close(found[kept], whole.logits[kept], rtol=1e-5, atol=1e-5)
    unpadded, again = model(input_ids=ids).logits, cut(monkeypatch, model, stages)
    both = [again(input_ids=part, use_cache=True) for part in (ids[:, :5], ids[:, 5:])]
    torch.testing.assert_close(torch.cat(both, 1), unpadded, rtol=1e-5, atol=1e-5)
    packed = torch.tensor([[0, 1, 2, 0, 1, 2, 3]] * 2)
    found = cut(monkeypatch, model, stages)(input_ids=ids, position_ids=packed, use_cache=False)
    torch.testing.assert_close(found, model(input_ids=ids, position_ids=packed).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "head"),
    [
        ("HfGptConfig", "HfGptModel"),
        ("HfGptConfig", "HfGptForSequenceClassification"),
        ("HfGptConfig", "HfGptForTokenClassification"),
        ("HfGptConfig", "HfGptForQuestionAnswering"),
        ("HfLstmConfig", "HfLstmForCausalLM"),
        ("HfGptSeq2SeqConfig", "HfGptForConditionalGeneration"),
        ("HfNgramCnnConfig", "HfNgramCnnForSequenceClassification"),
    ],
)
def test_what_cannot_be_cut_is_refused(config, head):
    names = {"HfNgramCnnConfig": 1, "HfLstmConfig": 2}.get(config, 3)
    sizes = dict(list(SIZES.items())[:names])
    model = getattr(hf_gpt, head)(getattr(hf_gpt, config)(**sizes))
    # Which other sizes there are depends on the version.
    sizes = {field.name: 1 for field in dataclasses.fields(DistributedConfig) if field.name.endswith("_size")}
    distributed = DistributedConfig(**{**sizes, "pp_size": 2})
    with pytest.raises(ValueError, match=r"pp_size=2.*tp_size"):
        type(model).maybe_distribute_model(model, distributed, None)
