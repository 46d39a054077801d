"""`model.generate` guided by a discriminator, against distributions over all texts that are worked out exactly."""

from pathlib import Path

import pytest
import torch
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

import hf_gpt.generation
from hf_gpt.generation.guidance.guided_generate import GUIDANCE, guided_generate, load_discriminator
from hf_gpt.generation.guidance.logits_processor import DiscriminatorLogitsProcessor
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.scoring.discriminator import sequence_scores
from hf_gpt.generation.scoring.log_ratio import is_language_model
from tests.generation.enumerated import (
    BEGIN,
    EOS,
    LENGTH,
    PAD,
    VOCAB,
    chi_square_per_degree,
    counts,
    make_lm,
    probabilities,
    total_variation,
)


def run(model, rows: int, **options):
    ids = torch.full((rows, 1), BEGIN)
    settings = {"max_new_tokens": LENGTH, "do_sample": True, "top_k": 0, "custom_generate": guided_generate}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **{**settings, **options})


def test_the_two_distributions_differ(pair):
    generator, data, _ = pair
    assert 0.5 * (probabilities(generator) - probabilities(data)).abs().sum() > 0.3


def test_resampling_approaches_the_data(pair):
    generator, data, log_ratio = pair
    target = probabilities(data)
    torch.manual_seed(0)
    few = total_variation(counts(run(generator, 1500, discriminator=log_ratio, num_candidates=2)), target)
    output = run(generator, 1500, discriminator=log_ratio, num_candidates=64, return_dict_in_generate=True)
    many = total_variation(counts(output.sequences), target)
    # Sampling noise alone: 1500 draws of the data itself.
    noise = total_variation(torch.bincount(torch.multinomial(target, 1500, True), minlength=len(target)), target)
    assert many < noise + 0.04 and many < 0.5 * few
    # ESS of n weights tends to n / (1 + chi-squared divergence of data from generator).
    divergence = (target.square() / probabilities(generator)).sum().item() - 1
    assert output.effective_sample_size.mean().item() == pytest.approx(64 / (1 + divergence), rel=0.25)
    torch.testing.assert_close(output.discriminator_scores[:5], log_ratio(*unpadded(output.sequences[:5])))


def unpadded(sequences: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    ended = (sequences == EOS).long().cumsum(1) - (sequences == EOS).long()
    return sequences, (ended == 0).long()


def test_rejection_gives_the_data_exactly(pair):
    generator, data, log_ratio = pair
    target = probabilities(data)
    bound = (target / probabilities(generator)).log().max().item()
    torch.manual_seed(0)
    output = run(
        generator,
        3000,
        discriminator=log_ratio,
        guidance="reject",
        num_candidates=3000,
        rejection_max_score=bound,
        return_dict_in_generate=True,
    )
    assert output.accepted.all()
    assert chi_square_per_degree(counts(output.sequences), target) < 1.7
    plain = run(generator, 3000, custom_generate=None)
    assert chi_square_per_degree(counts(plain), target) > 10


def test_stepwise_with_the_exact_prefix_ratio_samples_the_data(pair):
    generator, data, log_ratio = pair
    torch.manual_seed(0)
    guided = run(generator, 3000, discriminator=log_ratio, guidance="stepwise", guidance_top_k=0)
    assert chi_square_per_degree(counts(guided), probabilities(data)) < 1.7


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_stepwise_distribution_by_hand(pair, weight):
    """The processor's output is q^(1-w) p^w over the kept tokens, up to a factor, and rules the others out."""
    generator, data, log_ratio = pair
    prefix = torch.tensor([[BEGIN, 1], [BEGIN, 3]])
    with torch.no_grad():
        q, p = (model(prefix).logits[:, -1].log_softmax(-1) for model in (generator, data))
    scores = DiscriminatorLogitsProcessor(log_ratio, weight=weight, top_k=3, eos_token_id=EOS)(prefix, q.clone())
    kept = q.topk(3).indices
    torch.testing.assert_close(scores.gather(1, kept), (q + weight * (p - q)).gather(1, kept), rtol=1e-4, atol=1e-4)
    assert torch.isinf(scores).sum(1).tolist() == [1, 1]


def test_a_finished_text_is_left_alone_and_padding_is_not_scored():
    seen = []

    def scorer(sequences, attention_mask):
        seen.extend(ids[mask.bool()].tolist() for ids, mask in zip(sequences, attention_mask, strict=True))
        return torch.zeros(len(sequences))

    processor = DiscriminatorLogitsProcessor(scorer, top_k=1, pad_token_id=PAD, eos_token_id=EOS, prompt_length=2)
    logits = torch.randn(2, VOCAB)
    processed = processor(torch.tensor([[PAD, 3, 1], [1, 3, EOS]]), logits)
    torch.testing.assert_close(processed[1], logits[1].log_softmax(-1))
    assert seen == [[3, 1], [3, 1, logits[0].argmax().item()]]


def test_best_of_n_takes_the_largest_and_rows_of_a_prompt_are_independent(pair):
    generator, _, log_ratio = pair
    output = run(
        generator,
        2,
        discriminator=log_ratio,
        guidance="best_of_n",
        num_candidates=6,
        num_return_sequences=3,
        candidate_batch_size=5,
        return_dict_in_generate=True,
    )
    assert output.sequences.shape[0] == 6 and output.candidate_scores.shape == (6, 6)
    torch.testing.assert_close(output.discriminator_scores, output.candidate_scores.max(1).values)
    torch.testing.assert_close(output.discriminator_scores, log_ratio(*unpadded(output.sequences)))
    assert len(output.candidate_scores.unique()) > 6


def test_threshold_rejection_keeps_the_best_when_none_is_good_enough(pair, caplog):
    generator, _, log_ratio = pair
    settings = {"discriminator": log_ratio, "guidance": "reject", "num_candidates": 4, "return_dict_in_generate": True}
    output = run(generator, 20, rejection_threshold=0.55, **settings)
    assert (output.discriminator_scores.sigmoid()[output.accepted] > 0.55).all()
    output = run(generator, 5, rejection_threshold=0.9999, **settings)
    assert not output.accepted.any()
    torch.testing.assert_close(output.discriminator_scores, output.candidate_scores.max(1).values)


@pytest.mark.parametrize("judge", ["language model", "logits"])
@pytest.mark.parametrize("guidance", ["resample", "particles", "stepwise"])
def test_by_a_language_model_or_its_log_ratio_texts_become_its_own(pair, guidance, judge):
    """At a temperature the language model's are those at the same; a critic of logits knows nothing of it."""
    generator, data, log_ratio = pair
    temperature = 0.8 if judge == "language model" and guidance != "stepwise" else 1.0
    target = probabilities(data, temperature)
    torch.manual_seed(0)
    sequences = run(
        generator,
        1500,
        discriminator=data if judge == "language model" else log_ratio,
        guidance=guidance,
        num_candidates=64,
        guidance_block=2,
        guidance_top_k=0,
        temperature=temperature,
    )
    noise = total_variation(torch.bincount(torch.multinomial(target, 1500, True), minlength=len(target)), target)
    assert total_variation(counts(sequences), target) < noise + 0.05


@pytest.mark.parametrize("guidance", ["reject", "best_of_n"])
def test_a_language_model_scores_by_the_log_ratio_of_completions(pair, guidance):
    generator, data, log_ratio = pair
    settings = {"guidance": guidance, "num_candidates": 4, "return_dict_in_generate": True, "temperature": 1.0}
    outputs = []
    for discriminator in (data, log_ratio):
        torch.manual_seed(0)
        outputs.append(run(generator, 20, discriminator=discriminator, **settings))
    assert torch.equal(outputs[0].sequences, outputs[1].sequences)
    torch.testing.assert_close(outputs[0].discriminator_scores, outputs[1].discriminator_scores, rtol=1e-4, atol=1e-5)


def test_one_particle_is_the_generators_own_text_and_truncation_shapes_it(pair):
    generator, data, _ = pair
    torch.manual_seed(0)
    settings = {"discriminator": data, "guidance": "particles", "guidance_block": 1}
    alone = counts(run(generator, 3000, num_candidates=1, **settings))
    assert chi_square_per_degree(alone, probabilities(generator)) < 1.7
    # Two of four tokens: neither the generator nor its particles take another.
    plain = counts(run(generator, 1000, custom_generate=None, top_k=2)) > 0
    guided = counts(run(generator, 1000, num_candidates=6, top_k=2, **settings)) > 0
    assert guided.sum() > 3 and not (guided & ~plain).any()


def test_particles_end_by_each_end_token_and_by_other_criteria():
    generator, discriminator = (make_lm(seed, vocab_size=40, spread=0.05) for seed in (3, 4))
    prompts = torch.tensor([[PAD, 5], [7, 8]])

    class MultipleOfFive(StoppingCriteria):
        """Ends a row whose last token is a multiple of five."""

        def __call__(self, input_ids, scores, **kwargs):
            return input_ids[:, -1] % 5 == 0

    output = generator.generate(
        prompts,
        attention_mask=(prompts != PAD).long(),
        custom_generate=guided_generate,
        discriminator=discriminator,
        guidance="particles",
        guidance_block=2,
        num_candidates=4,
        num_return_sequences=20,
        stopping_criteria=StoppingCriteriaList([MultipleOfFive()]),
        eos_token_id=[EOS, 11, 12, 13],
        suppress_tokens=[PAD],
        top_p=0.95,
        max_new_tokens=9,
        do_sample=True,
        return_dict_in_generate=True,
    )

    def ratio(text: torch.Tensor, start: int) -> torch.Tensor:
        """Of the tokens from `start` on; the generator's are those of the distribution that it samples from."""
        with torch.no_grad():
            logits = [model(text).logits[:, start - 1 : -1] for model in (discriminator, generator)]
        logits[1] = SamplingConfig(top_p=0.95).policy_logits(logits[1], sampled=text[:, start:])
        first, second = (one.log_softmax(-1).gather(2, text[:, start:, None]).sum((1, 2)) for one in logits)
        return first - second

    ends = {EOS, 11, 12, 13, *range(0, 40, 5)}
    lengths = set()
    for number, row in enumerate(output.sequences.tolist()):
        assert row[:2] == prompts[number // 20].tolist()
        position = next((position for position, token in enumerate(row[2:]) if token in ends), 8)
        lengths.add(position + 1)
        assert not any(row[position + 3 :])
        whole = torch.tensor([row[: position + 3]])
        # Padding of a prompt is no token of it.
        whole, start = (whole[:, 1:], 1) if row[0] == PAD else (whole, 2)
        expected = ratio(whole, start)
        torch.testing.assert_close(output.discriminator_scores[number : number + 1], expected, rtol=1e-3, atol=1e-4)
    # Ends at the end of a block as well as within one.
    assert {1, 2, 3, 4} <= lengths


@pytest.mark.parametrize("guidance", ["resample", "reject", "best_of_n", "particles", "stepwise"])
@pytest.mark.parametrize("model_type", ["hf_gpt", "llama", "gpt2"])
def test_any_decoder_with_prompts_of_different_lengths(make_discriminator, model_type, guidance):
    """Padded prompts: the critic reads prompt and completion without padding, and seeds repeat the texts."""
    generator = make_lm(3, model_type, vocab_size=40, **({"n_inner": 16} if model_type == "gpt2" else {}))
    discriminator = make_discriminator("hf_ngram_cnn")
    ids = torch.tensor([[PAD, PAD, 5], [7, 8, 9]])
    mask = torch.tensor([[0, 0, 1], [1, 1, 1]])
    options = {"max_new_tokens": 5, "do_sample": True, "discriminator": discriminator, "guidance": guidance}
    options |= {"custom_generate": guided_generate, "num_candidates": 3, "num_return_sequences": 2, "guidance_block": 2}
    runs = []
    for _ in range(2):
        torch.manual_seed(4)
        runs.append(generator.generate(ids, attention_mask=mask, return_dict_in_generate=True, **options))
    sequences = runs[0].sequences
    assert torch.equal(sequences, runs[1].sequences)
    assert sequences.shape[0] == 4 and torch.equal(sequences[:, :3], ids.repeat_interleave(2, 0))
    if guidance != "stepwise":
        for row, score in zip(sequences, runs[0].discriminator_scores, strict=True):
            text = row[3:].tolist()
            text = text[: text.index(EOS) + 1] if EOS in text else text
            prompt = [5] if row[2] == 5 else [7, 8, 9]
            alone = sequence_scores(discriminator, torch.tensor([prompt + text]))
            torch.testing.assert_close(score[None], alone, rtol=1e-4, atol=1e-5)


def test_padding_after_a_text_that_another_criterion_ended_is_not_scored():
    generator = make_lm(3, vocab_size=40)
    seen = []

    def scorer(sequences, attention_mask):
        seen.extend(ids[mask.bool()].tolist() for ids, mask in zip(sequences, attention_mask, strict=True))
        return torch.zeros(len(sequences))

    class EvenToken(StoppingCriteria):
        """Ends a row whose last token is even."""

        def __call__(self, input_ids, scores, **kwargs):
            return input_ids[:, -1] % 2 == 0

    generator.generate(
        torch.full((6, 1), 5),
        attention_mask=torch.ones(6, 1),
        custom_generate=guided_generate,
        discriminator=scorer,
        stopping_criteria=StoppingCriteriaList([EvenToken()]),
        suppress_tokens=[PAD],
        max_new_tokens=6,
        do_sample=True,
    )
    assert len(seen) == 6 * 8 and len({len(text) for text in seen}) > 2
    for text in seen:
        assert all(token % 2 for token in text[1:-1]) and (text[-1] % 2 == 0 or len(text) == 7)


def test_the_processor_alone_guides_greedy_and_beam_search(make_discriminator):
    generator = make_lm(3, vocab_size=40)
    processor = DiscriminatorLogitsProcessor(make_discriminator("hf_gpt"), weight=50.0, top_k=5, pad_token_id=PAD)
    ids = torch.tensor([[PAD, 5], [7, 8]])
    mask = (ids != PAD).long()
    for beams in (1, 3):
        processor.prompt_length = None
        options = {"max_new_tokens": 4, "num_beams": beams, "do_sample": False, "attention_mask": mask}
        guided = generator.generate(ids, logits_processor=LogitsProcessorList([processor]), **options)
        assert not torch.equal(guided, generator.generate(ids, **options))


def test_the_folder_form(make_discriminator, tmp_path, monkeypatch):
    generator, discriminator = make_lm(3, vocab_size=40), make_discriminator("hf_ngram_cnn")
    discriminator.save_pretrained(tmp_path / "discriminator")
    ids = torch.tensor([[5, 6]])
    options = {"max_new_tokens": 4, "num_candidates": 3, "guidance": "best_of_n"}
    torch.manual_seed(0)
    expected = generator.generate(
        ids, custom_generate=guided_generate, discriminator=discriminator, do_sample=True, **options
    )
    torch.manual_seed(0)
    folder = str(Path(hf_gpt.generation.__file__).parent)
    found = generator.generate(
        ids, custom_generate=folder, trust_remote_code=True, discriminator=str(tmp_path / "discriminator"), **options
    )
    assert torch.equal(expected, found)
    assert load_discriminator(str(tmp_path / "discriminator")).config.num_labels == 1


def test_a_language_model_is_told_from_a_classifier_by_its_architecture(make_discriminator, tmp_path):
    for model_type in ("hf_gpt", "gpt2"):
        folder = str(tmp_path / model_type)
        make_lm(3, model_type, vocab_size=40).save_pretrained(folder)
        assert is_language_model(load_discriminator(folder, language_model=True))
        with pytest.raises(ValueError, match="is a language model"):
            load_discriminator(folder)
    make_discriminator("hf_gpt").save_pretrained(tmp_path / "discriminator")
    assert not is_language_model(load_discriminator(str(tmp_path / "discriminator"), language_model=True))
    with pytest.raises(OSError, match="nowhere"):
        load_discriminator(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discriminator": None}, "needs discriminator"),
        ({"guidance": "best"}, "Choose one of: resample, reject"),
        ({"num_candidates": 0}, "at least 1"),
        ({"guidance": "particles", "guidance_block": 0}, "at least 1 token"),
        ({"guidance": "particles", "guidance_temperature": 0.0}, "above 0"),
        ({"num_beams": 2}, "num_beams=1"),
        ({"do_sample": False}, "do_sample=True"),
    ],
)
def test_settings_that_cannot_work(pair, options, message):
    generator, _, log_ratio = pair
    with pytest.raises(ValueError, match=message):
        run(generator, 1, **{"discriminator": log_ratio, **options})


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_where_every_candidate_is_ruled_out_one_of_them_is_given(pair, guidance):
    generator, _, _ = pair

    def nothing(sequences, attention_mask):
        return torch.full((len(sequences),), -torch.inf)

    sequences = run(generator, 6, discriminator=nothing, guidance=guidance, num_candidates=3)
    assert (sequences[:, 0] == BEGIN).all() and sequences.shape[1] > 1


def test_particles_that_are_ruled_out_until_they_end(pair):
    """A critic of whole texts, which says nothing of unfinished ones."""
    generator, _, _ = pair

    def ends(sequences, attention_mask):
        return torch.where((sequences[:, 1:] == EOS).any(1), 0.0, -torch.inf)

    sequences = run(generator, 200, discriminator=ends, guidance="particles", num_candidates=32, guidance_block=1)
    assert (sequences[:, 1:] == EOS).any(1).float().mean() > 0.98


@pytest.mark.parametrize("guidance", GUIDANCE)
@pytest.mark.parametrize("model_type", ["gpt2", "bert", "roberta", "hf_gpt"])
def test_a_critic_with_too_few_positions_is_refused_before_anything_is_drawn(make_discriminator, model_type, guidance):
    positions = {"max_position_embeddings": 8}
    if model_type == "hf_gpt":
        positions["position_embedding_type"] = "learned"
    elif model_type == "roberta":
        # Its padding, token 0, has a position.
        positions["max_position_embeddings"] = 9
    discriminator = make_discriminator(model_type, **positions)
    generator = make_lm(3, vocab_size=40)
    options = {"attention_mask": torch.tensor([[0, 1, 1], [1, 1, 1]]), "do_sample": True, "guidance": guidance}
    options |= {
        "custom_generate": guided_generate,
        "discriminator": discriminator,
        "num_candidates": 2,
        "eos_token_id": None,
    }
    prompts = torch.tensor([[PAD, 5, 7], [7, 8, 9]])
    assert generator.generate(prompts, max_new_tokens=5, **options).shape == (2, 8)
    # Not as a model that it calls says by itself.
    with pytest.raises(ValueError, match=r"up to 9 tokens.* positions for 8: shorten"):
        generator.generate(prompts, max_new_tokens=6, **options)


def test_a_critic_with_rotary_positions_reads_on(make_discriminator):
    discriminator = make_discriminator("llama", max_position_embeddings=8)
    generator, prompts = make_lm(3, vocab_size=40), torch.tensor([[7, 8, 9]])
    options = {
        "custom_generate": guided_generate,
        "discriminator": discriminator,
        "do_sample": True,
        "eos_token_id": None,
    }
    assert generator.generate(prompts, max_new_tokens=9, **options).shape == (1, 12)
