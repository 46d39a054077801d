"""A tokenizer is written to GGUF where llama.cpp gives the same tokens, and refused by name elsewhere."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast

from hf_gpt.conversion.gguf_tokenizer import describe_tokenizer, mend_tokenizer
from hf_gpt.conversion.modelfile import write_modelfile
from hf_gpt.data.tokenizer import TWO_DIGIT_PATTERNS, split_by
from hf_gpt.errors import ConversionError
from hf_gpt.models.configuration_hf_gpt import HfGptConfig


PROSE = "the quick brown fox jumps over the lazy dog and the dog jumps over the fox \n" * 4
NUMBERS = "12 12 34 3434 1212 ½½ ٣٤٣٤ " * 20


def trained(text, *steps, normalizer=None, size=300):
    """A byte-level BPE that cuts texts by these steps."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(steps))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def spelled(**options):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, **options)


def test_patterns_are_found_by_what_they_do():
    digits = pre_tokenizers.Digits(individual_digits=True)
    assert describe_tokenizer(trained(PROSE, spelled()), 320).pattern == "gpt-2"
    assert describe_tokenizer(trained(PROSE, digits, spelled()), 320).pattern == "smollm"
    with pytest.raises(ConversionError, match=r"none of llama\.cpp's gpt-2, smollm, llama-bpe, qwen2"):
        describe_tokenizer(trained(PROSE, pre_tokenizers.Punctuation(), spelled()), 320)


@pytest.mark.parametrize("pattern", TWO_DIGIT_PATTERNS, ids=["bounded", "unbounded"])
def test_tokenizers_of_earlier_versions(pattern):
    """Without a token of several digits it makes no difference where numbers are cut."""
    described = describe_tokenizer(trained(PROSE, split_by(pattern)), 320)
    assert described.pattern == "qwen2"
    assert bool(described.notes) == (pattern == TWO_DIGIT_PATTERNS[0])
    with pytest.raises(ConversionError, match=r"earlier version.*Train a tokenizer.*--no_tokenizer"):
        describe_tokenizer(trained(PROSE + NUMBERS, split_by(pattern), size=330), 330)


@pytest.mark.parametrize("text", ["½½ ", "٣٤ ", "ⅷⅷ "], ids=ascii)
def test_digits_of_other_scripts_count_too(text):
    with pytest.raises(ConversionError, match="earlier version"):
        describe_tokenizer(trained(text * 50, split_by(TWO_DIGIT_PATTERNS[1]), size=270), 270)


def test_what_stands_in_the_way_is_named():
    plain = trained(PROSE, spelled())
    with pytest.raises(ConversionError, match="only 100 tokens"):
        describe_tokenizer(plain, 100)
    with pytest.raises(ConversionError, match=r"a normalizer \(Lowercase\)"):
        describe_tokenizer(trained(PROSE, spelled(), normalizer=normalizers.Lowercase()), 320)
    described = describe_tokenizer(trained(PROSE, spelled(), normalizer=normalizers.NFC()), 320)
    assert any("NFC" in note for note in described.notes)
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, "[UNK]")))
    with pytest.raises(ConversionError, match="no byte-level BPE"):
        describe_tokenizer(words, 320)
    plain.add_tokens([AddedToken("<mask>", lstrip=True)])
    with pytest.raises(ConversionError, match=r"<mask>.*lstrip"):
        describe_tokenizer(plain, 320)


def test_what_is_added_around_a_text():
    tokenizer = trained(PROSE, spelled())
    template = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    tokenizer.backend_tokenizer.post_processor = template
    described = describe_tokenizer(tokenizer, 320)
    assert (described.adds_bos, described.adds_eos) == (True, False)
    assert described.types[0] == 3 and described.types[-1] == 5 and len(described.tokens) == 320


@pytest.mark.parametrize(
    ("pattern", "parts"), [("smollm", 3), ("gpt-2", 1), ("llama-bpe", 1), ("qwen2", 3), ("unheard-of", 1)]
)
def test_a_file_is_cut_by_the_pattern_it_names(pattern, parts):
    tokenizer = trained("123 " * 50, spelled(), size=260)
    notes = mend_tokenizer(tokenizer, "gpt2", pattern)
    assert len(tokenizer("123")["input_ids"]) == parts
    assert bool(notes) == (pattern == "unheard-of")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (
            "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
            "{% if add_generation_prompt %}[A]{% endif %}",
            1,
        ),
        ("{% for m in messages %}{{ loop.index }} {{ m.content }}{% endfor %}", 0),
        ("{% for m in messages %}{{ m.content | trim | upper }}{% endfor %}", 0),
        ("{{ raise_exception('no') }}", 0),
    ],
    ids=["turns", "numbered", "changed", "refusing"],
)
def test_a_modelfile_says_a_template_or_that_it_cannot(template, says, tmp_path):
    tokenizer = trained(PROSE, spelled())
    tokenizer.chat_template = template
    described = describe_tokenizer(tokenizer, 320)
    notes = write_modelfile(tmp_path / "a.gguf", tokenizer, described, HfGptConfig(), None)
    content = (tmp_path / "a.Modelfile").read_text()
    assert ("TEMPLATE" in content) == bool(says) and bool(notes) == (not says)


def test_a_modelfile_says_how_tokens_are_sampled(tmp_path):
    tokenizer = trained(PROSE, spelled())
    described = describe_tokenizer(tokenizer, 320)
    how = GenerationConfig(do_sample=True, temperature=0.8, top_p=0.95, top_k=0, max_new_tokens=60, eos_token_id=[0])
    write_modelfile(tmp_path / "a.gguf", tokenizer, described, HfGptConfig(), how)
    lines = set((tmp_path / "a.Modelfile").read_text().splitlines())
    assert {"PARAMETER temperature 0.8", "PARAMETER top_p 0.95", "PARAMETER num_predict 60"} <= lines
    how = GenerationConfig(do_sample=False, temperature=0.8)
    write_modelfile(tmp_path / "b.gguf", tokenizer, described, HfGptConfig(), how)
    assert "temperature" not in (tmp_path / "b.Modelfile").read_text()
