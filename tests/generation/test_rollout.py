import pytest
import torch

from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.inverse_cdf import sample
from hf_gpt.generation.scoring.logprobs import completion_logps
from tests.sampling_options import rollout


BOS, EOS, PAD = 1, 2, 0
IDS = {"eos_token_id": EOS, "pad_token_id": PAD, "bos_token_id": BOS}
PROMPTS = [[BOS, 5, 6, 7], [BOS, 9], [BOS, 3, 4]]
pytestmark = pytest.mark.usefixtures("steps")
DECODERS = ["hf_gpt", "llama", "qwen3", "gpt2"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def padded(prompts, side="left"):
    width = max(map(len, prompts))
    fill = [[PAD] * (width - len(prompt)) for prompt in prompts]
    pairs = list(zip(fill, prompts, strict=True))
    ids = torch.tensor([f + p if side == "left" else p + f for f, p in pairs])
    return ids, torch.tensor(
        [[0] * len(f) + [1] * len(p) if side == "left" else [1] * len(p) + [0] * len(f) for f, p in pairs]
    )


@pytest.mark.parametrize("model_type", [*DECODERS, "bart"])
def test_logps_are_those_of_a_full_forward_pass(make_generator, model_type):
    model = make_generator(model_type)
    ids, mask = padded(PROMPTS)
    samples = rollout(
        model,
        ids,
        mask,
        num_return_sequences=12,
        max_new_tokens=9,
        temperature=1.5,
        top_p=0.95,
        generator=generator(),
        return_model_logps=True,
        **IDS,
    )
    assert samples.logps.dtype == torch.float32 and len({int(n) for n in samples.completion_mask.sum(-1)}) > 1
    texts = samples.sequences, samples.attention_mask, samples.prompt_length, samples.completions
    with torch.no_grad():
        again = completion_logps(model, *texts, 1.5, top_p=0.95, support=samples.support)
        own = completion_logps(model, *texts)
    torch.testing.assert_close(samples.logps, again * samples.completion_mask, rtol=0, atol=1e-5)
    torch.testing.assert_close(samples.model_logps, own * samples.completion_mask, rtol=0, atol=1e-5)
    # And against rows that are worked out one at a time, without padding.
    for row in range(len(samples)):
        length = int(samples.prompt_length[row])
        count = int(samples.completion_mask[row].sum())
        tokens = samples.sequences[row, : length + count]
        assert tokens[:length].tolist() == PROMPTS[row // 12]
        assert tokens[length:].tolist() == samples.completions[row, :count].tolist()
        with torch.no_grad():
            if model_type == "bart":
                decoder = torch.cat([torch.tensor([EOS]), tokens[length:-1]])
                logits = model(input_ids=tokens[None, :length], decoder_input_ids=decoder[None]).logits[0]
            else:
                logits = model(input_ids=tokens[None]).logits[0, length - 1 : -1]
        expected = logits.log_softmax(-1)[torch.arange(count), tokens[length:]]
        torch.testing.assert_close(samples.model_logps[row, :count], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model_type", [*DECODERS, "bart"])
def test_greedy_equals_generate(make_generator, model_type):
    model = make_generator(model_type)
    ids, mask = padded(PROMPTS, "right" if model_type == "bart" else "left")
    samples = rollout(model, ids, mask, max_new_tokens=8, temperature=0, **IDS)
    expected = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False, eos_token_id=EOS, pad_token_id=PAD
    )
    expected = expected[:, 1:] if model_type == "bart" else expected[:, ids.shape[1] :]
    assert samples.completions.tolist() == expected.tolist()


@pytest.mark.parametrize("model_type", DECODERS)
def test_padding_and_batches_change_nothing(make_generator, model_type):
    model = make_generator(model_type)
    uniforms = torch.rand(3, 10, dtype=torch.float64, generator=generator())
    settings = {"max_new_tokens": 10, **IDS}
    together = rollout(model, *padded(PROMPTS), uniforms=uniforms, **settings)
    right = rollout(model, *padded(PROMPTS, "right"), uniforms=uniforms, **settings)
    split = rollout(model, *padded(PROMPTS), uniforms=uniforms, batch_size=2, **settings)
    for other in (right, split):
        assert together.sequences.tolist() == other.sequences.tolist()
        torch.testing.assert_close(together.logps, other.logps, rtol=0, atol=1e-5)
    for row, prompt in enumerate(PROMPTS):
        alone = rollout(model, torch.tensor([prompt]), uniforms=uniforms[row : row + 1], **settings)
        count = alone.completions.shape[1]
        assert alone.completions[0].tolist() == together.completions[row, :count].tolist()
        torch.testing.assert_close(alone.logps[0], together.logps[row, :count], rtol=0, atol=1e-5)


def test_end_of_text(make_generator):
    model = make_generator()
    samples = rollout(model, num_return_sequences=64, max_new_tokens=12, generator=generator(), **IDS)
    lengths = samples.completion_mask.sum(-1).long()
    assert len(set(lengths.tolist())) > 3
    for row, length in enumerate(lengths.tolist()):
        tokens = samples.completions[row].tolist()
        assert EOS not in tokens[: length - 1] and (tokens[length - 1] == EOS or length == 12)
        assert set(tokens[length:]) <= {PAD} and samples.logps[row, length:].abs().sum() == 0
        assert samples.attention_mask[row].sum() == length + 1 and samples.sequences[row, 0] == BOS
    never = rollout(model, num_return_sequences=8, max_new_tokens=12, bos_token_id=BOS, generator=generator())
    assert never.completion_mask.sum() == 8 * 12
    both = rollout(
        model,
        num_return_sequences=64,
        max_new_tokens=12,
        bos_token_id=BOS,
        eos_token_id=[EOS, 7],
        generator=generator(),
    )
    last = both.completions[torch.arange(64), both.completion_mask.sum(-1).long() - 1]
    assert {EOS, 7} <= set(last.tolist())


def test_frequencies_are_the_models(make_generator):
    model = make_generator(spread=3.0)
    samples = rollout(
        model, num_return_sequences=40_000, max_new_tokens=1, generator=generator(), batch_size=20_000, **IDS
    )
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[BOS]])).logits[0, -1].softmax(-1)
    found = torch.bincount(samples.completions[:, 0], minlength=20) / 40_000
    assert ((found - expected).abs() < 5 * (expected * (1 - expected) / 40_000).sqrt() + 1e-6).all()


def test_truncated_distributions_by_hand():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().expand(4000, 4)
    uniforms = torch.rand(4000, dtype=torch.float64, generator=generator())

    def shares(**settings):
        return torch.bincount(sample(logits, uniforms, SamplingConfig(**settings)).tokens, minlength=4).float() / 4000

    def near(*expected):
        return pytest.approx(expected, abs=0.03)

    assert shares().tolist() == near(0.4, 0.3, 0.2, 0.1)
    assert shares(top_k=2).tolist() == near(4 / 7, 3 / 7, 0, 0)
    assert shares(top_p=0.65).tolist() == near(4 / 7, 3 / 7, 0, 0)
    assert shares(top_p=0.75).tolist() == near(4 / 9, 3 / 9, 2 / 9, 0)
    assert shares(temperature=0.5).tolist() == near(16 / 30, 9 / 30, 4 / 30, 1 / 30)
    assert shares(top_k=2)[2:].sum() == 0 and shares(temperature=0).tolist() == [1, 0, 0, 0]


def test_tokens_of_no_probability_are_never_drawn():
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf]).expand(3, 5)
    uniforms = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert sample(logits, uniforms, SamplingConfig()).tokens.tolist() == [1, 3, 3]


def test_training_mode_and_gradients_are_left_as_they_were(make_generator):
    model = make_generator(hidden_dropout=0.5).train()
    first = rollout(model, num_return_sequences=4, max_new_tokens=6, generator=generator(), **IDS)
    second = rollout(model, num_return_sequences=4, max_new_tokens=6, generator=generator(), **IDS)
    assert model.training and not first.logps.requires_grad
    assert first.sequences.tolist() == second.sequences.tolist()


def test_gradient_flows_through_the_recomputed_logps(make_generator):
    model = make_generator()
    samples = rollout(model, num_return_sequences=4, max_new_tokens=6, generator=generator(), **IDS)
    logps = completion_logps(
        model, samples.sequences, samples.attention_mask, samples.prompt_length, samples.completions
    )
    (logps * samples.completion_mask).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("settings", [{"prompt": True}, {"prompt": True, "peft": "prompt"}, {"peft": "lora"}])
def test_models_with_an_adapter(make_generator, settings):
    peft = pytest.importorskip("peft")
    kind = settings.get("peft", "lora")
    config = (
        peft.LoraConfig(task_type="CAUSAL_LM", r=2, init_lora_weights=False)
        if kind == "lora"
        else peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    )
    model = peft.get_peft_model(make_generator("llama"), config)
    ids, mask = padded(PROMPTS)
    samples = rollout(model, ids, mask, max_new_tokens=6, generator=generator(), **IDS)
    with torch.no_grad():
        again = completion_logps(
            model, samples.sequences, samples.attention_mask, samples.prompt_length, samples.completions
        )
    torch.testing.assert_close(samples.logps, again * samples.completion_mask, rtol=0, atol=1e-5)


def test_an_encoder_reads_no_more_than_its_positions(make_generator):
    model = make_generator("hf_gpt_seq2seq")
    with pytest.raises(ValueError, match="a prompt of 65 tokens or max_new_tokens=8 are more than the 64 positions"):
        rollout(model, torch.ones(2, 65, dtype=torch.int64), max_new_tokens=8, **IDS)
    assert rollout(model, torch.ones(2, 64, dtype=torch.int64), max_new_tokens=8, **IDS).completions.shape[0] == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": None, "bos_token_id": 1}, "max_new_tokens"),
        ({"num_return_sequences": 2, "bos_token_id": None}, "bos_token_id"),
        ({"num_return_sequences": 2, "max_new_tokens": 0}, "max_new_tokens"),
        ({"num_return_sequences": 2, "temperature": -1.0}, "temperature"),
        ({"num_return_sequences": 2, "top_p": 0.0}, "top_p"),
        ({"num_return_sequences": 2, "max_new_tokens": 64}, "64 positions"),
        ({"num_return_sequences": 2, "uniforms": torch.rand(3, 8)}, "uniforms"),
        ({"prompt_ids": torch.ones(2, 0, dtype=torch.int64)}, "empty"),
    ],
)
def test_wrong_settings(make_generator, settings, message):
    with pytest.raises(ValueError, match=message):
        rollout(make_generator(), **{"max_new_tokens": 8, **IDS, **settings})
