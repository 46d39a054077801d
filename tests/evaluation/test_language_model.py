import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.evaluation import load
from hf_gpt.evaluation.language_model.likelihood import likelihood, windows
from hf_gpt.evaluation.language_model.word_model import WordModel
from hf_gpt.evaluation.text.vocabulary import BOS, EOS, WordVocabulary


LETTERS = list("abcdefgh")


@pytest.fixture(scope="module")
def tokenizer():
    words = {word: number for number, word in enumerate(["<s>", "<unk>", *LETTERS])}
    backend = Tokenizer(WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = HfGptConfig(
        vocab_size=10, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64
    )
    # Weights large enough for the context to matter.
    return HfGptForCausalLM(HfGptConfig(**{**config.to_dict(), "initializer_range": 0.5})).eval()


def texts(count=6, longest=40, seed=0):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(LETTERS, generator.integers(1, longest))) for _ in range(count)]


def nll_by_hand(model, ids, max_length, overlap):
    """Each token after exactly the context that its window gives it, one forward pass for every token."""
    total = 0.0
    for position in range(1, len(ids)):
        # The first window predicts all its tokens; each later one the tokens after the overlap.
        start = (
            0
            if position < max_length
            else ((position - max_length) // (max_length - overlap) + 1) * (max_length - overlap)
        )
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids[start:position]])).logits[0, -1]
        total -= logits.log_softmax(-1)[ids[position]].item()
    return total


def test_windows_predict_each_token_once_with_context():
    assert windows(10, 6, 3) == [(0, 6, 1), (3, 9, 6), (6, 10, 9)]
    assert windows(1, 6, 3) == []
    for length, size, stride in [(50, 8, 1), (50, 8, 7), (8, 8, 4), (9, 8, 4)]:
        predicted = [position for _, end, first in windows(length, size, stride) for position in range(first, end)]
        assert predicted == list(range(1, length))
        assert all(first - start >= min(first, size - stride) for start, _, first in windows(length, size, stride))


def test_likelihood_of_whole_texts_and_of_windows(model, tokenizer):
    some = [*texts(2, 20), "a b c d e f g h a b c d e"]
    for max_length, stride in [(64, 32), (8, 4), (8, 7)]:
        found = likelihood(model, tokenizer, some, max_length=max_length, stride=stride, batch_size=2)
        rows = [[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]] for text in some]
        expected = [nll_by_hand(model, ids, max_length, max_length - stride) for ids in rows]
        np.testing.assert_allclose(found.nll, expected, rtol=1e-5)
        assert found.tokens.tolist() == [len(ids) - 1 for ids in rows]


def test_perplexity_metric(model, tokenizer, tmp_path):
    some = texts()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = load("perplexity").compute(predictions=some, model=str(tmp_path))
    direct = likelihood(model, tokenizer, some)
    assert found["perplexity"] == pytest.approx(math.exp(direct.nll.sum() / direct.tokens.sum()), rel=1e-6)
    size = sum(len(text) for text in some)
    assert found["bits_per_byte"] == pytest.approx(direct.nll.sum() / math.log(2) / size, rel=1e-6)
    assert found["mean_perplexity"] == pytest.approx(np.exp(direct.nll / direct.tokens).mean(), rel=1e-6)
    assert load("perplexity").compute(predictions=some, model=model, processing_class=tokenizer) == pytest.approx(found)


def test_a_special_token_that_is_spelled_out_is_text(model, tokenizer):
    spelled = likelihood(model, tokenizer, ["a <s> b"])
    assert spelled.tokens.tolist() == [5]
    unknown = "a <unk> <unk> <unk> b"
    ids = [tokenizer.bos_token_id, *tokenizer(unknown)["input_ids"]]
    assert spelled.nll[0] == pytest.approx(nll_by_hand(model, ids, 64, 32), rel=1e-5)


def test_perplexity_reads_without_dropout_and_leaves_a_model_in_training(tokenizer):
    torch.manual_seed(0)
    sizes = {"vocab_size": 10, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    trained = HfGptForCausalLM(HfGptConfig(hidden_dropout=0.5, **sizes)).train()
    given = {"predictions": texts(), "model": trained, "processing_class": tokenizer}
    assert load("perplexity").compute(**given) == load("perplexity").compute(**given)
    assert all(module.training for module in trained.modules())


def test_bad_input_of_perplexity(model, tokenizer):
    metric = load("perplexity")
    for given, message in [
        ({"predictions": ["a"]}, "model is missing"),
        ({"predictions": ["a"], "model": model}, "give processing_class"),
        ({"predictions": [""], "model": model, "processing_class": tokenizer}, "hold no tokens"),
        ({"predictions": ["a"], "model": model, "processing_class": tokenizer, "stride": 64}, "stride must be from 1"),
        ({"predictions": ["a", 1], "model": model}, r"predictions\[1\] is 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            metric.compute(**given)
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, unk_token="<unk>")
    with pytest.raises(ValueError, match="neither a BOS nor an EOS"):
        likelihood(model, bare, ["a"])


def chains(count, seed, follow=1.0):
    """Texts in which each letter is followed by the next of the alphabet with probability `follow`."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        position, letters = int(generator.integers(8)), []
        for _ in range(8):
            letters.append(LETTERS[position])
            position = (position + 1) % 8 if generator.random() < follow else int(generator.integers(8))
        made.append(letters)
    return made


def test_word_model_scores_as_its_logits_say():
    sentences = chains(5, 0)
    word_model = WordModel(WordVocabulary(sentences), hidden_size=32)
    nll, tokens = word_model.nll(sentences[:1])
    ids = [BOS, *(word_model.vocabulary.numbers[word] for word in sentences[0]), EOS]
    logits = word_model.model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    assert nll[0] == pytest.approx(-logits[range(9), ids[1:]].sum().item(), rel=1e-5)
    assert tokens[0] == 9
    hidden = word_model.model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0)
    found = word_model.features([sentences[1] + ["a"] * 9, sentences[0]])
    np.testing.assert_allclose(found[1], hidden.detach().numpy(), atol=1e-5)


def test_a_teacher_is_learnt_in_place_of_the_words():
    """What the teacher says at the texts, not the texts; validation goes by the words all the same."""
    sentences = chains(64, 0, follow=0.7)
    vocabulary = WordVocabulary(sentences)
    teacher, pupil = (WordModel(vocabulary, 12, 32, 1, dropout=0.0, seed=seed) for seed in (0, 1))
    rows = torch.tensor([[BOS, *(vocabulary.numbers[word] for word in words)] for words in sentences])

    def distance():
        with torch.no_grad():
            told, own = (model.model.eval()(input_ids=rows).logits.log_softmax(-1) for model in (teacher, pupil))
        return (told.exp() * (told - own)).sum(-1).mean().item()

    before, words = distance(), pupil.nll(sentences)[0].mean()
    fit = pupil.train(sentences, sentences, epochs=8, batch_size=16, patience=8, teacher=teacher)
    nll, tokens = pupil.nll(sentences)
    assert distance() < 0.5 * before and nll.mean() > 0.8 * words
    assert fit.loss == pytest.approx(nll.sum() / tokens.sum(), rel=1e-3)


def test_scores_reach_the_entropy_of_a_known_language_and_order_samples():
    small = {"hidden_size": 32, "epochs": 8, "batch_size": 16}
    real, held_out, noise = chains(400, 0), chains(100, 1), chains(400, 2, follow=0.3)
    join = [[" ".join(words) for words in some] for some in (real, held_out, noise)]
    score = load("lm_score").compute(predictions=join[2], references=join[0], **small)
    # First letter log 8, everything after it certain: log(8) / 9 = 0.231 nats per token.
    assert score["lm_score_references"] == pytest.approx(math.log(8) / 9, abs=0.05)
    assert score["lm_score"] > score["lm_score_references"] + 0.5
    good = load("reverse_lm_score").compute(predictions=join[0], references=join[1], **small)
    bad = load("reverse_lm_score").compute(predictions=join[2], references=join[1], **small)
    # Only texts that begin with a: all of them right, most of the language missing.
    narrow = [text for text in join[0] if text.startswith("a")] * 8
    collapsed = load("reverse_lm_score").compute(predictions=narrow, references=join[1], **small)
    assert good["reverse_lm_score"] == pytest.approx(math.log(8) / 9, abs=0.05)
    assert bad["reverse_lm_score"] > good["reverse_lm_score"] + 0.3
    assert collapsed["reverse_lm_score"] > good["reverse_lm_score"] + 0.2
    fine = load("lm_score").compute(predictions=narrow, references=join[0], **small)
    # By likelihood alone the collapsed sample looks no worse than real text.
    assert fine["lm_score"] < score["lm_score_references"] + 0.03


def test_too_few_texts():
    with pytest.raises(ValueError, match="needs at least 20"):
        load("lm_score").compute(predictions=["a"] * 3, references=["b"] * 30)
