"""Pixels and sound as tokens: quantisation, spectrograms, feature extractors, processor."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoProcessor, AutoTokenizer

from hf_gpt import (
    HfGptAudioFeatureExtractor,
    HfGptConfig,
    HfGptForCausalLM,
    HfGptImageFeatureExtractor,
    HfGptModalityProcessor,
)
from hf_gpt.modalities.quantization import (
    decode_by_codebooks,
    encode_by_codebooks,
    fit_codebooks,
    mu_law_decode,
    mu_law_encode,
    quantize_uniform,
)
from hf_gpt.modalities.spectrogram import log_mel


def tone(frequency, seconds=0.2, loudness=0.5):
    return loudness * np.sin(2 * np.pi * frequency * np.arange(int(8000 * seconds)) / 8000)


def test_levels_are_the_nearest_ones_and_ends_hold_what_lies_outside():
    assert quantize_uniform([-3, 0, 0.4, 0.6, 2, 9], 0, 2, 3).tolist() == [0, 0, 0, 1, 2, 2]


def test_mu_law_is_the_curve_of_the_standard():
    # G.711's continuous curve at mu 255: F(x) = ln(1 + 255 |x|) / ln 256, worked by hand for x = 1/255.
    level = mu_law_encode(np.array([1 / 255]))[0]
    assert level == round((np.log(2) / np.log(256) + 1) / 2 * 255)
    wave = np.linspace(-1, 1, 2001)
    levels = mu_law_encode(wave)
    assert np.all(np.diff(levels) >= 0) and levels[0] == 0 and levels[-1] == 255
    assert np.array_equal(mu_law_encode(mu_law_decode(np.arange(256))), np.arange(256))
    # A step is 1/128 of the curve, whose slope is at most ln 256 (1 + 255 |x|) / 255: half a step is the largest error.
    largest = np.log(256) * (1 + 255 * np.abs(wave)) / 255 / 255 * 1.1
    assert np.all(np.abs(mu_law_decode(levels) - wave) <= largest)


def test_codes_are_the_nearest_words_of_each_group():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 6))
    codebooks = fit_codebooks(vectors, 2, 8, seed=1)
    assert codebooks.shape == (2, 8, 3)
    codes = encode_by_codebooks(vectors, codebooks)
    for group in range(2):
        part = vectors[:, 3 * group : 3 * group + 3]
        distances = np.linalg.norm(part[:, None] - codebooks[group][None], axis=2)
        assert np.array_equal(codes[:, group], distances.argmin(1))
    again = decode_by_codebooks(codes, codebooks)
    assert np.array_equal(encode_by_codebooks(again, codebooks), codes)
    with pytest.raises(ValueError, match="divisor"):
        fit_codebooks(vectors, 4, 8)
    with pytest.raises(ValueError, match="too few"):
        fit_codebooks(vectors, 2, 201)


def test_log_mel_is_that_of_the_library():
    from transformers.audio_utils import mel_filter_bank, spectrogram

    wave = np.random.default_rng(0).normal(size=1000) * 0.1
    window = np.hanning(257)[:-1]
    filters = mel_filter_bank(129, 16, 20.0, 4000.0, 8000, mel_scale="htk")
    expected = spectrogram(
        wave, window, 256, 100, power=2.0, pad_mode="constant", mel_filters=filters, mel_floor=1e-10, log_mel="log"
    )
    found = log_mel(wave, num_mel_bins=16, n_fft=256, hop_length=100, sampling_rate=8000)
    np.testing.assert_allclose(found, expected.T, atol=1e-4)


def test_pixels_round_trip_and_take_any_size():
    image = np.random.default_rng(0).integers(0, 17, (8, 8))
    extractor = HfGptImageFeatureExtractor()
    values = extractor.encode(image)
    assert np.array_equal(values, image.reshape(-1)) and np.array_equal(extractor.decode(values), image)
    assert np.array_equal(extractor.decode(values[:12])[:2].reshape(-1)[:12], image.reshape(-1)[:12])
    assert extractor.decode(values[:12])[2:].sum() == 0

    large = np.random.default_rng(0).uniform(0, 1, (28, 28))
    grey = HfGptImageFeatureExtractor(image_size=(28, 28), num_levels=9, value_range=(0, 1))
    assert np.abs(grey.decode(grey.encode(large)) - large).max() <= 1 / 16 + 1e-12
    with pytest.raises(ValueError, match="Resize it"):
        extractor.encode(large)


def test_patches_are_cut_row_by_row():
    # Four kinds of 2x2 patches, so a codebook of four words gives each image back.
    kinds = np.array([[[0, 0], [0, 0]], [[9, 9], [9, 9]], [[9, 0], [9, 0]], [[0, 0], [9, 9]]], float)
    rng = np.random.default_rng(0)
    images = [np.block([[kinds[k] for k in row] for row in rng.integers(0, 4, (3, 2))]) for _ in range(30)]
    extractor = HfGptImageFeatureExtractor((6, 4), value_range=(0, 9), patch_size=2)
    with pytest.raises(ValueError, match="fit"):
        extractor.encode(images[0])
    extractor.fit(images, 4)
    assert extractor.max_values == 6 and extractor.num_values == 4
    for image in images[:5]:
        values = extractor.encode(image)
        np.testing.assert_allclose(extractor.decode(values), image, atol=1e-5)
        # The third value is the left patch of the second row.
        assert values[2] == extractor.encode(np.tile(image[2:4, :2], (3, 2)))[0]
    with pytest.raises(ValueError, match="must divide"):
        HfGptImageFeatureExtractor((7, 8), patch_size=2)


def test_sounds_are_levelled_trimmed_and_stretched():
    silence = np.zeros(1600)
    wave = np.concatenate([tone(300), tone(1200)])
    padded = np.concatenate([silence, wave, silence])
    plain = HfGptAudioFeatureExtractor(num_mel_bins=16)
    frames = plain.features(wave)
    assert abs(frames.std() - 1) < 1e-6 and abs(frames.mean()) < 1e-6
    # Loudness is levelled; silence at the ends is cut, up to the frames that reach into the sound.
    np.testing.assert_allclose(plain.features(wave * 0.1), frames, atol=1e-6)
    assert abs(len(plain.features(padded)) - len(frames)) <= 2
    # 16-bit integers are the same sound.
    np.testing.assert_allclose(plain.features(np.rint(wave * 32768).astype(np.int16)), frames, atol=0.05)

    stretched = HfGptAudioFeatureExtractor(num_mel_bins=16, num_frames=12)
    assert stretched.features(wave).shape == (12, 16) and stretched.features(padded).shape == (12, 16)
    # The first half is the low tone, the second the high one, however long the sound is.
    low, high = stretched.features(wave).argmax(1)[[2, 9]]
    assert low < high
    assert np.array_equal(
        stretched.features(np.concatenate([tone(300, 0.4), tone(1200, 0.4)])).argmax(1)[[2, 9]], [low, high]
    )
    for wrong in (np.zeros((2, 5)), np.zeros(0), np.array([np.nan])):
        with pytest.raises(ValueError, match="one channel"):
            plain.encode(wrong)


def test_stretching_by_loudness_passes_over_silence():
    pause = np.zeros(1600)
    cut = np.concatenate([pause[:400], tone(400), pause[:400]])
    uncut = np.concatenate([pause, tone(400), pause, pause])
    options = {"num_frames": 8, "trim_range": None, "band_share": 0.0}
    by_time = HfGptAudioFeatureExtractor(**options)
    by_loudness = HfGptAudioFeatureExtractor(**options, loudness_share=1.0)
    # By time most of the eight frames lie in the silence around the tone; by loudness at most the ends do.
    assert np.abs(by_time.features(uncut)[1:-1] - by_time.features(cut)[1:-1]).mean() > 0.5
    assert np.abs(by_loudness.features(uncut)[1:-1] - by_loudness.features(cut)[1:-1]).mean() < 0.1
    # Loudness 0, 1, 3 above the quietest: steps of 1/2 and 2, so a fifth of the loudness is in the first of two.
    frames = np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 2.0]])
    times = by_loudness._times(frames, np.array([0.0, 0.1, 0.2, 0.6, 1.0]))
    np.testing.assert_allclose(times, [0, 0.25, 0.5, 0.75, 1])
    half = HfGptAudioFeatureExtractor(**options, loudness_share=0.5)
    np.testing.assert_allclose(half._times(frames, np.array([0.35])), [0.5])
    # Without any loudness of its own, a sound is stretched by time.
    np.testing.assert_array_equal(by_loudness._times(np.ones((3, 2)), np.array([0.3])), [0.3])
    with pytest.raises(ValueError, match="num_frames"):
        HfGptAudioFeatureExtractor(loudness_share=0.5)
    with pytest.raises(ValueError, match="from 0 to 1"):
        HfGptAudioFeatureExtractor(num_frames=8, loudness_share=1.5)


def test_decoded_sounds_have_the_pitch_and_length_of_the_first():
    waves = [np.concatenate([tone(f, 0.15), tone(g, 0.15)]) for f, g in ((300, 900), (900, 300), (600, 1500))]
    for options in ({"num_frames": 16}, {}):
        extractor = HfGptAudioFeatureExtractor(num_groups=4, hop_length=80, **options).fit(waves, 8)
        values = extractor.encode(waves[0])
        assert len(values) % 4 == 0 and set(values // 8 % 4) == {0, 1, 2, 3}
        again = extractor.decode(values)
        assert abs(len(again) - len(waves[0])) < 0.1 * len(waves[0])
        half = len(again) // 2
        peaks = [
            np.abs(np.fft.rfft(part, 8000)).argmax() for part in (again[100 : half - 100], again[half + 100 : -100])
        ]
        assert abs(peaks[0] - 300) < 80 and abs(peaks[1] - 900) < 150


def test_mu_law_round_trip():
    extractor = HfGptAudioFeatureExtractor(encoding="mu_law")
    wave = tone(440)
    assert len(extractor.encode(wave)) == len(wave) and extractor.num_values == 256
    np.testing.assert_allclose(extractor.decode(extractor.encode(wave)), wave, atol=0.02)


@pytest.fixture
def processor():
    extractor = HfGptImageFeatureExtractor((2, 2), num_levels=3, value_range=(0, 2))
    return HfGptModalityProcessor.create(extractor, ["zero", "a class"])


def test_tokens_by_hand(processor):
    # 0 end, 1 padding, 2 and 3 classes, 4 to 6 levels.
    rows = processor([[[0, 1], [2, 0]]], ["a class"])["input_ids"]
    assert rows == [[3, 4, 5, 6, 4, 0]]
    assert processor([[[0, 1], [2, 0]]])["input_ids"] == [[0, 4, 5, 6, 4, 0]]
    prompts = processor.prompts(["zero", "a class"], [[1, 2], []], return_tensors="pt")
    assert prompts["input_ids"].tolist() == [[2, 5, 6], [1, 1, 3]]
    assert prompts["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert processor.values_of([3, 4, 5, 6, 4, 0, 5]) == [0, 1, 2, 0]
    assert processor.decode([1, 0, 4, 5, 6, 4, 0, 1]).tolist() == [[0, 1], [2, 0]]
    assert processor.tokenizer.decode(rows[0]) == "<|class:a class|> v0 v1 v2 v0 <|endoftext|>"
    assert processor.tokenizer(processor.tokenizer.decode(rows[0])).input_ids == rows[0]
    assert processor.class_names == ["zero", "a class"]
    with pytest.raises(ValueError, match=r"no class 'one'\. Classes: zero, a class"):
        processor([[[0, 1], [2, 0]]], ["one"])


def test_saved_and_opened_by_the_auto_classes(processor, tmp_path):
    waves = [tone(300), tone(600), tone(900)]
    spoken = HfGptModalityProcessor.create(HfGptAudioFeatureExtractor(num_frames=6).fit(waves, 5), ["a", "b"])
    for name, one, media in (("image", processor, [np.eye(2)]), ("audio", spoken, waves)):
        one.save_pretrained(tmp_path / name)
        again = AutoProcessor.from_pretrained(tmp_path / name)
        assert type(again) is HfGptModalityProcessor and type(again.feature_extractor) is type(one.feature_extractor)
        assert again(media)["input_ids"] == one(media)["input_ids"]
        assert again.class_names == one.class_names
        assert len(AutoTokenizer.from_pretrained(tmp_path / name)) == len(one.tokenizer)
        extractor = AutoFeatureExtractor.from_pretrained(tmp_path / name)
        assert extractor.num_values == one.feature_extractor.num_values
        for written, expected in zip(again.batch_decode(one(media)["input_ids"]), media, strict=True):
            assert np.isfinite(written).all() and written.ndim == np.ndim(expected)


def test_a_text_checkpoint_is_still_opened_as_text(tmp_path):
    from hf_gpt.data.tokenizer import train_tokenizer

    HfGptConfig(vocab_size=300).save_pretrained(tmp_path)
    train_tokenizer(["some text"], 300).save_pretrained(tmp_path)
    assert AutoProcessor.from_pretrained(tmp_path).vocab_size < 300


def test_generate_draws_and_completes_an_image(processor):
    torch.manual_seed(0)
    config = HfGptConfig(
        vocab_size=len(processor.tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        position_embedding_type="learned", max_position_embeddings=6, pad_token_id=1, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = HfGptForCausalLM(config)
    # Two images, told apart by their class alone, learnt by heart.
    images, names = [[[0, 1], [2, 0]], [[2, 2], [1, 0]]], ["zero", "a class"]
    batch = processor(images, names, return_tensors="pt")
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        loss = model(**batch, labels=batch["input_ids"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    samples = model.generate(**processor.prompts(names, return_tensors="pt"), max_new_tokens=5, do_sample=False)
    assert [image.tolist() for image in processor.batch_decode(samples)] == images
    half = processor.prompts(names, [[0, 1], [2, 2]], return_tensors="pt")
    completed = model.generate(**half, max_new_tokens=3, do_sample=False)
    assert [image.tolist() for image in processor.batch_decode(completed)] == images


def test_the_package_is_imported_without_what_training_needs():
    code = (
        "import sys\n"
        "for name in ('datasets', 'sklearn', 'evaluate', 'peft', 'scipy', 'PIL'): sys.modules[name] = None\n"
        "import numpy as np\n"
        "from hf_gpt import HfGptImageFeatureExtractor, HfGptModalityProcessor, HfGptAudioFeatureExtractor\n"
        "p = HfGptModalityProcessor.create(HfGptImageFeatureExtractor())\n"
        "assert p.batch_decode(p([np.eye(8)])['input_ids'])[0].shape == (8, 8)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_voice_is_what_its_sounds_have_in_common(tmp_path):
    rng = np.random.default_rng(0)
    # Two speakers say the same four words: tones, through a filter that weakens either low or high ones.
    seconds = np.arange(2400) / 8000
    words = [[np.sin(2 * np.pi * tone * seconds) for tone in rng.uniform(200, 3500, 3)] for _ in range(4)]
    spoken = []
    for weights in ((1.0, 0.5, 0.2), (0.2, 0.5, 1.0)):
        for word in words:
            wave = sum(weight * tone for weight, tone in zip(weights, sorted(word, key=lambda t: t[1]), strict=True))
            spoken.append(0.2 * wave + 0.001 * rng.normal(size=len(seconds)))
    extractor = HfGptAudioFeatureExtractor(num_frames=8, num_groups=4)
    voices = [extractor.voice(spoken[:4])] * 4 + [extractor.voice(spoken[4:])] * 4
    plain = np.stack([extractor.features(audio) for audio in spoken])
    np.testing.assert_allclose(voices[0], plain[:4].mean(0))
    with pytest.raises(ValueError, match="keeps voices"):
        extractor.features(spoken[0], voice=voices[0])
    extractor.fit(spoken, 8, voices=voices)
    found = np.stack([extractor.features(audio, voice=voice) for audio, voice in zip(spoken, voices, strict=True)])
    np.testing.assert_allclose(found, plain - np.stack(voices), atol=1e-6)
    # The same word by the other speaker is nearer than it was.
    assert np.abs(found[:4] - found[4:]).mean() < np.abs(plain[:4] - plain[4:]).mean()
    # Without a voice the mean one is taken away, at the places that are asked for.
    np.testing.assert_allclose(extractor.features(spoken[0]), plain[0] - np.mean(voices, 0), atol=1e-5)
    positions = np.linspace(0, 1, 15)
    kept = HfGptAudioFeatureExtractor(num_frames=8).features(spoken[0], positions)
    found = extractor.features(spoken[0], positions, voices[0])
    np.testing.assert_allclose(kept[::2] - found[::2], voices[0], atol=1e-6)
    np.testing.assert_allclose(kept[1] - found[1], (voices[0][0] + voices[0][1]) / 2, atol=1e-6)

    extractor.save_pretrained(tmp_path)
    again = HfGptAudioFeatureExtractor.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again.encode(spoken[0], voices[0]), extractor.encode(spoken[0], voices[0]))
    np.testing.assert_array_equal(again.encode(spoken[0]), extractor.encode(spoken[0]))
    assert len(again.decode(again.encode(spoken[0]))) > 0
    assert len(again.decode([*again.encode(spoken[0]), *range(8)])) > len(again.decode(again.encode(spoken[0])[:8]))
    processor = HfGptModalityProcessor.create(again)
    rows = processor(spoken[:2], voices=voices[:2])["input_ids"]
    assert processor.values_of(rows[1]) == extractor.encode(spoken[1], voices[1]).tolist()


def test_a_voice_needs_sounds_of_one_length():
    for options in ({"num_frames": None}, {"encoding": "mu_law", "num_frames": 8}):
        with pytest.raises(ValueError, match="num_frames"):
            HfGptAudioFeatureExtractor(**options).voice([np.ones(100)])
    with pytest.raises(ValueError, match="none is given"):
        HfGptAudioFeatureExtractor(num_frames=8).voice([])
