"""What an accelerator computes against the CPU's float32, or one way on it against another; a rehearsal without one.

Sizes: a model of 10 M parameters on an accelerator, a tiny one on a CPU.
"""

import copy

import pytest
import torch

from eval.benchmarks.speed.machine import default_device
from eval.benchmarks.speed.models import SIZES
from eval.experiments.common.adversarial import QUIET
from hf_gpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification


pytestmark = pytest.mark.slow

DEVICE = default_device()
IS_CPU = DEVICE.type == "cpu"
SIZE, VOCAB_SIZE, LENGTH = (SIZES["tiny"], 300, 48) if IS_CPU else (SIZES["10m"], 8192, 512)
# Largest difference of logits, whose own size is about 1.
FLOAT32, HALF = 1e-3, 0.1


@pytest.fixture(scope="module", autouse=True)
def exact_products():
    """Rounded products would hide what is looked for."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="module")
def reference() -> HfGptForCausalLM:
    """The model on the CPU, in float32."""
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
    return HfGptForCausalLM(HfGptConfig(vocab_size=VOCAB_SIZE, max_position_embeddings=2048, **SIZE, **ends)).eval()


@pytest.fixture
def on_device(reference):
    """Makes its copy on the device."""

    def make(attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> HfGptForCausalLM:
        model = copy.deepcopy(reference)
        model.set_attn_implementation(attention)
        return model.to(DEVICE, dtype)

    return make


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(1, VOCAB_SIZE, (2, LENGTH), generator=torch.Generator().manual_seed(1))


def assert_near(actual: torch.Tensor, expected: torch.Tensor, limit: float = FLOAT32) -> None:
    torch.testing.assert_close(actual.float().cpu(), expected.float().cpu(), atol=limit, rtol=0)


@torch.no_grad()
def logits(model, ids: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
    inputs = {name: value.to(model.device) for name, value in inputs.items()}
    return model(ids.to(model.device), use_cache=False, **inputs).logits


@pytest.mark.parametrize(
    ("attention", "dtype", "limit"),
    [
        ("sdpa", torch.float32, FLOAT32),
        ("sdpa", torch.bfloat16, HALF),
        ("eager", torch.float32, FLOAT32),
        ("flex_attention", torch.float32, FLOAT32),
    ],
)
def test_logits_are_those_of_the_cpu(reference, on_device, ids, attention, dtype, limit):
    assert_near(logits(on_device(attention, dtype), ids), logits(reference, ids), limit)


def test_compiling_keeps_the_logits(on_device, ids):
    model = on_device()
    expected = logits(model, ids)
    model.forward = torch.compile(model.forward, fullgraph=True)
    assert_near(logits(model, ids), expected)


def test_packed_documents_are_each_by_itself(on_device, ids):
    model, cut = on_device(), LENGTH // 3
    positions = torch.cat([torch.arange(cut), torch.arange(LENGTH - cut)]).unsqueeze(0)
    separate = torch.cat([logits(model, ids[:1, :cut]), logits(model, ids[:1, cut:])], dim=1)
    assert_near(logits(model, ids[:1], position_ids=positions), separate)


def test_gradients_of_chunks_are_those_of_full_logits_on_the_cpu(reference, on_device, ids):
    found = []
    for model, chunked in ((on_device(), "always"), (copy.deepcopy(reference), "never")):
        model.train().config.chunked_loss = chunked
        inputs = ids.to(model.device)
        model(inputs, labels=inputs).loss.backward()
        found.append(torch.cat([parameter.grad.flatten().cpu() for parameter in model.parameters()]))
    largest = found[1].abs().max()
    assert_near(found[0] / largest, found[1] / largest)


@pytest.mark.parametrize("way", ["dynamic", "static", "prompt lookup", "fast_generate"])
def test_greedy_tokens_are_the_same_with_every_cache(on_device, ids, way):
    from hf_gpt.generation.decoding.fast_generate import fast_generate

    model = on_device()
    prompt = ids[: 1 if way == "prompt lookup" else 2, :8].to(DEVICE)
    settings = {"max_new_tokens": min(64, LENGTH), "do_sample": False}
    ways = {"prompt lookup": {"prompt_lookup_num_tokens": 3}, "fast_generate": {"custom_generate": fast_generate}}
    expected = model.generate(prompt, use_cache=False, **settings)
    found = model.generate(prompt, **settings, **ways.get(way, {"cache_implementation": way}))
    assert torch.equal(found, expected), f"{(found == expected).float().mean():.1%} of the tokens are the same"


def test_log_probabilities_of_a_rollout_are_those_of_a_forward_pass(on_device, ids):
    from hf_gpt.generation.sampling.distribution import SamplingConfig
    from hf_gpt.generation.sampling.rollout import rollout
    from hf_gpt.generation.scoring.logprobs import completion_logps

    model = on_device()
    samples = rollout(model, ids[:, :8].to(DEVICE), sampling=SamplingConfig(max_new_tokens=min(64, LENGTH)))
    with torch.no_grad():
        again = completion_logps(
            model, samples.sequences, samples.attention_mask, samples.prompt_length, samples.completions
        )
    assert_near(samples.logps, again * samples.completion_mask)


def test_encoder_decoder_and_lstm_are_those_of_the_cpu(ids):
    from hf_gpt import HfGptForConditionalGeneration, HfGptSeq2SeqConfig, HfLstmConfig, HfLstmForCausalLM

    size = {"vocab_size": VOCAB_SIZE, "hidden_size": SIZE["hidden_size"]}
    torch.manual_seed(0)
    config = HfGptSeq2SeqConfig(**size, num_hidden_layers=2, num_attention_heads=SIZE["num_attention_heads"])
    pair, recurrent = HfGptForConditionalGeneration(config), HfLstmForCausalLM(HfLstmConfig(**size))
    for model, inputs in ((pair, {"decoder_input_ids": ids}), (recurrent, {})):
        expected = logits(model.eval(), ids, **inputs)
        assert_near(logits(model.to(DEVICE), ids, **inputs), expected)


def test_steps_in_bfloat16_on_rows_that_repeat_lower_the_loss(on_device, ids, tmp_path):
    from hf_gpt.training.trainer import HfGptTrainer
    from hf_gpt.training.training_arguments import HfGptTrainingArguments

    model, inputs = on_device().train(), ids.to(DEVICE)
    settings = {"max_steps": 20, "per_device_train_batch_size": 2, "learning_rate": 3e-3, "bf16": True}
    arguments = HfGptTrainingArguments(output_dir=str(tmp_path), use_cpu=IS_CPU, **settings, **QUIET)
    with torch.no_grad():
        before = model(inputs, labels=inputs).loss.item()
    rows = [{"input_ids": row, "labels": row} for row in ids] * 20
    HfGptTrainer(model=model, args=arguments, train_dataset=rows).train()
    with torch.no_grad():
        assert model(inputs, labels=inputs).loss.item() < before - 0.5


def test_adversarial_steps_in_bfloat16_change_generator_and_discriminator(on_device, ids, tmp_path):
    from hf_gpt.adversarial.config import AdversarialConfig
    from hf_gpt.adversarial.trainer import AdversarialTrainer

    def first_weight(model):
        return next(p for p in model.parameters() if p.ndim > 1).detach().float().cpu().clone()

    generator = on_device().train()
    generator.config.eos_token_id = 1
    config = copy.deepcopy(generator.config)
    config.num_labels = 1
    discriminator = HfGptForSequenceClassification(config).to(DEVICE)
    before = [first_weight(model) for model in (generator, discriminator)]
    arguments = AdversarialConfig(
        output_dir=str(tmp_path),
        max_steps=3,
        per_device_train_batch_size=4,
        max_new_tokens=16,
        discriminator_warmup_steps=2,
        gate_auc=0.0,
        monitor_steps=2,
        num_eval_samples=0,
        bf16=True,
        use_cpu=IS_CPU,
        **QUIET,
    )
    rows = [{"input_ids": row[:16].tolist()} for row in ids] * 32
    AdversarialTrainer(model=generator, discriminator=discriminator, args=arguments, train_dataset=rows).train()
    for model, former in zip((generator, discriminator), before, strict=True):
        assert (first_weight(model) - former).abs().max() > 0
