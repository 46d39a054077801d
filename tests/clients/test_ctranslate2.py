"""Converted checkpoints in CTranslate2: `make check-ctranslate2`."""

import pytest

from tests.clients.records import equal_tokens, record
from tests.clients.reference import NUM_NEW_TOKENS, count_equal


ctranslate2 = pytest.importorskip(
    "ctranslate2", reason="make check-ctranslate2 installs it in an environment of its own"
)


def test_greedy_tokens(converted, record_property, tmp_path):
    family, ours, folder = converted
    ctranslate2.converters.TransformersConverter(str(folder)).convert(str(tmp_path / "model"))
    generator = ctranslate2.Generator(str(tmp_path / "model"), device="cpu", compute_type="float32", intra_threads=1)
    prompts = [ours.tokenizer.convert_ids_to_tokens(ids) for ids in ours.prompt_ids]
    options = {"max_length": NUM_NEW_TOKENS, "min_length": NUM_NEW_TOKENS, "sampling_topk": 1, "beam_size": 1}
    results = generator.generate_batch(prompts, include_prompt_in_result=False, **options)
    equal, total = count_equal([result.sequences_ids[0] for result in results], ours.greedy)
    assert equal == total
    compared = f"greedy tokens of a checkpoint converted to {family}"
    record(record_property, "CTranslate2", "ctranslate2", compared, equal_tokens(equal, total), package="ctranslate2")
