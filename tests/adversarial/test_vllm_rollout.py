"""Rollouts by a server, which a client of TRL's interface stands in for: a second model that only gets what is sent."""

import inspect
import logging

import pytest
import torch

from hf_gpt.adversarial.data.vllm_rollout import VllmRollout
from hf_gpt.errors import ConfigError
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.scoring.logprobs import completion_logps
from tests.adversarial.players import BOS, EOS, PAD, make_generator, make_pairs, make_trainer
from tests.sampling_options import rollout


class Server:
    """Holds a model of its own and answers as `trl.generation.vllm_client.VLLMClient` does."""

    def __init__(self, seed=9):
        self.model, self.calls, self.resets = make_generator(seed=seed), [], 0
        self.generator = torch.Generator().manual_seed(0)

    def generate(
        self, prompts, n=1, temperature=1.0, top_p=1.0, top_k=0, max_tokens=16, logprobs=0, generation_kwargs=None
    ):
        self.calls.append({"n": n, "temperature": temperature, **generation_kwargs})
        completions, scores = [], []
        (end,) = generation_kwargs.get("stop_token_ids", [None])
        for prompt in prompts:
            options = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "max_new_tokens": max_tokens}
            samples = rollout(
                self.model,
                torch.tensor([prompt]),
                num_return_sequences=n,
                eos_token_id=end,
                generator=self.generator,
                **options,
            )
            for ids, mask, logps in zip(
                samples.completions, samples.completion_mask.bool(), samples.logps, strict=True
            ):
                completions.append(ids[mask].tolist())
                scores.append([[logp] for logp in logps[mask].tolist()])
        return {"prompt_ids": prompts, "completion_ids": completions, "logprobs": scores}

    def update_named_params(self, metadata, named_params):
        sent = dict(named_params)
        assert [(name, str(t.dtype)[6:], list(t.shape)) for name, t in sent.items()] == metadata
        assert set(sent) == dict(self.model.named_parameters()).keys()
        self.model.load_state_dict(sent, strict=False)

    def reset_prefix_cache(self):
        self.resets += 1


PROMPTS = torch.tensor([[PAD, BOS, 5], [BOS, 6, 7]])
MASK = torch.tensor([[0, 1, 1], [1, 1, 1]])


def sample(sampler, model, **settings):
    options = {"max_new_tokens": 6, "num_return_sequences": 3, "eos_token_id": EOS, "pad_token_id": PAD, **settings}
    batch_size, sampling = options.pop("batch_size", None), SamplingConfig(**options)
    others = {"uniforms": torch.rand(6, 6), "synced": False, "batch_size": batch_size}
    return sampler(model, PROMPTS, MASK, sampling=sampling, **others)


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("settings", [{"temperature": 0.7}, {"top_p": 0.8}, {"temperature": 0.7, "top_k": 5}])
def test_what_is_drawn_is_a_rollout_with_our_own_log_probabilities(batch_size, settings):
    model, sampler = make_generator(hidden_dropout=0.5).train(), VllmRollout(Server())
    samples = sample(sampler, model, batch_size=batch_size, **settings)
    assert samples.prompt_length.tolist() == [2, 2, 2, 3, 3, 3] and model.training
    for row in range(6):
        length, prompt = int(samples.completion_mask[row].sum()), int(samples.prompt_length[row])
        ids = samples.completions[row, :length].tolist()
        assert EOS not in ids[:-1] and (length == 6 or ids[-1] == EOS)
        whole = [*PROMPTS[row // 3][MASK[row // 3].bool()].tolist(), *ids]
        assert samples.sequences[row][samples.attention_mask[row].bool()].tolist() == whole
        assert prompt + length == len(whole) and samples.logps[row, length:].eq(0).all()
    model.eval()
    texts = samples.sequences, samples.attention_mask, samples.prompt_length, samples.completions
    expected = completion_logps(model, *texts, support=samples.support, **settings)
    # What the server can sample is what we could, up to rounding.
    torch.testing.assert_close(completion_logps(model, *texts, **settings), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(samples.logps, expected * samples.completion_mask, atol=1e-5, rtol=1e-5)


def test_weights_are_sent_when_they_change_and_only_then():
    server, model = Server(), make_generator()
    sampler = VllmRollout(server)
    sample(sampler, model)
    sample(sampler, model)
    assert sampler.syncs == server.resets == 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(input_ids=PROMPTS, labels=PROMPTS).loss.backward()
    optimizer.step()
    sample(sampler, model)
    assert sampler.syncs == server.resets == 2
    for name, parameter in server.model.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name
    # Two rows exchanged leave sums as they are.
    weight = model.get_input_embeddings().weight
    weight.data[[5, 6]] = weight.data[[6, 5]]
    sample(sampler, model)
    assert sampler.syncs == 3
    sample(sampler, make_generator(seed=3))
    assert sampler.syncs == 4


def test_where_texts_end():
    server, model = Server(), make_generator()
    sample(VllmRollout(server), model)
    samples = sample(VllmRollout(server), model, eos_token_id=None)
    assert server.calls[0]["stop_token_ids"] == [EOS] and server.calls[1]["ignore_eos"] is True
    assert samples.completion_mask.all() and samples.completions.shape == (6, 6)


def test_a_server_with_other_weights_is_noticed(caplog):
    server, model = Server(), make_generator()
    sampler = VllmRollout(server)
    sample(sampler, model)
    assert sampler.difference < 1e-5
    sample(sampler, model, temperature=0.5)
    assert sampler.difference is None
    with torch.no_grad():
        server.model.lm_head.weight.mul_(30)
    with caplog.at_level(logging.WARNING):
        sample(sampler, model)
        sample(sampler, model)
    assert sampler.difference > 0.1 and caplog.text.count("samples another model") == 1


@pytest.mark.parametrize("settings", [{}, {"estimator": "grpo", "num_iterations": 2, "temperature": 0.8}])
def test_a_game_with_a_server(tmp_path, settings):
    server = Server()
    sampler = VllmRollout(server)
    trainer = make_trainer(
        tmp_path, texts=make_pairs(), group_size=4, rollout_function=sampler, max_steps=5, **settings
    )
    trainer.train()
    assert {call["n"] for call in server.calls} <= {1, 4} and sampler.syncs >= 2
    # The ratio of policies begins at 1: the figure is the difference of our two passes, not of two engines.
    mismatch = [entry["logp_mismatch"] for entry in trainer.state.log_history if "logp_mismatch" in entry]
    assert mismatch and mismatch[0] < 1e-5


def test_what_is_refused():
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    sizes = {"vocab_size": 16, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    other = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", **sizes))
    with pytest.raises(ConfigError, match="for decoders"):
        sample(VllmRollout(Server()), other)
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(make_generator(), peft.LoraConfig(target_modules="all-linear"))
    with pytest.raises(ConfigError, match="not adapters"):
        sample(VllmRollout(Server()), adapted)


def test_no_server_is_one_line():
    with pytest.raises(ConfigError, match="vLLM") as error:
        VllmRollout.connect("http://127.0.0.1:9", timeout=0.0)
    assert "\n" not in str(error.value)


def test_the_stand_in_has_trls_interface():
    client = pytest.importorskip("trl.generation.vllm_client", reason="needs TRL: pip install 'trl>=1.16'").VLLMClient
    real, ours = (inspect.signature(each.generate).parameters for each in (client, Server))
    assert set(ours) <= set(real)
    for name in ("update_named_params", "reset_prefix_cache"):
        assert list(inspect.signature(getattr(client, name)).parameters) == list(
            inspect.signature(getattr(Server, name)).parameters
        )
    assert {"base_url", "connection_timeout"} <= set(inspect.signature(client.__init__).parameters)
    assert "device" in inspect.signature(client.init_communicator).parameters
