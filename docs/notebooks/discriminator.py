# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A discriminator, and adversarial training
#
# After this notebook you can train a discriminator, choose among samples by it, and train generator and discriminator
# against each other. At the end a classifier that neither has met tests what was gained. The run is small, so nothing
# is to be expected of it: raise `STEPS` for a verdict worth having, and see the results page for ours.

# %%
import os
import random

import matplotlib.pyplot as plt
import torch
from transformers import set_seed

from hf_gpt import (
    AdversarialConfig,
    AdversarialTrainer,
    HfGptConfig,
    HfGptForCausalLM,
    make_discriminator,
    train_discriminator,
)
from hf_gpt.data.corpus import read_corpus
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.evaluation.two_sample.classifier_test import controlled_test
from hf_gpt.evaluation.two_sample.tfidf_classifier import tfidf_scores
from hf_gpt.generation.guidance.selection import best_of
from hf_gpt.generation.scoring.discriminator import sequence_scores


STEPS = int(os.environ.get("STEPS", 30))
LENGTH = 24
set_seed(0)

# %% [markdown]
# Real texts: single lines of Shakespeare, most of them to learn from.

# %%
lines = [line for text in read_corpus(["tinyshakespeare"])["text"] for line in text.split("\n") if len(line) > 20]
# Sampled from all of the plays: lines from the end alone would be about something else.
lines = random.Random(0).sample(list(dict.fromkeys(lines)), 1200)
real, unseen = lines[:1000], lines[1000:1200]
tokenizer = train_tokenizer(iter(real), 400, model_max_length=LENGTH + 1)
begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
ids = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": pad}
generator = HfGptForCausalLM(
    HfGptConfig.preset("nano", vocab_size=len(tokenizer), max_position_embeddings=LENGTH + 1, **ids)
)

# %% [markdown]
# ## Maximum likelihood first
#
# `AdversarialTrainer` has a warm-up by maximum likelihood. Here it takes all steps. The estimator `spin` needs no
# discriminator.

# %%
rows = [{"text": line} for line in real]
common = {
    "per_device_train_batch_size": 16,
    "max_new_tokens": LENGTH,
    "learning_rate": 2e-3,
    "save_strategy": "no",
    "report_to": "none",
    "num_eval_samples": 0,
    "logging_steps": 10,
}
arguments = AdversarialConfig(
    output_dir="runs/likelihood", mle_warmup_steps=4 * STEPS, max_steps=4 * STEPS, estimator="spin", **common
)
AdversarialTrainer(model=generator, args=arguments, train_dataset=rows, processing_class=tokenizer).train()


def sample(count: int, seed: int = 1):
    set_seed(seed)
    start = torch.full((count, 1), begin)
    samples = generator.generate(start, do_sample=True, top_k=0, max_new_tokens=LENGTH)
    return samples, tokenizer.batch_decode(samples, skip_special_tokens=True)


print("\n".join(sample(3)[1]))

# %% [markdown]
# ## The discriminator
#
# `ngram_cnn` is the quickest on little data; any classifier with one label can take its place. Its AUC on unseen texts
# is the probability that a real text scores above a generated one: 0.5 is chance.

# %%
discriminator = make_discriminator("ngram_cnn", generator)
pieces = tokenizer(real, truncation=True, max_length=LENGTH - 1, add_special_tokens=False)["input_ids"]
encoded = [{"prompt_ids": [begin], "completion_ids": [*some, end]} for some in pieces]
found = train_discriminator(generator, discriminator, encoded, max_new_tokens=LENGTH, epochs=2, seed=0)
print(f"held-out AUC {found.auc:.2f}")

# %% [markdown]
# Without any more training, the discriminator takes the best of four samples.

# %%
samples, texts = sample(80)
scores = sequence_scores(discriminator, samples, (samples != pad).long())
chosen = [texts[4 * row + position] for row, position in enumerate(best_of(scores.view(20, 4)).tolist())]
print("\n".join(chosen[:3]))

# %% [markdown]
# ## Generator against discriminator
#
# The gate leaves the generator alone while the discriminator cannot tell texts apart. Maximum likelihood on real text
# stays in the loss.

# %%
arguments = AdversarialConfig(
    output_dir="runs/adversarial", max_steps=STEPS, discriminator_warmup_steps=2, lambda_mle=0.5, **common
)
trainer = AdversarialTrainer(
    model=generator, discriminator=discriminator, args=arguments, train_dataset=rows, processing_class=tokenizer
)
trainer.train()
print(trainer.describe_updates())

# %% [markdown]
# ## The verdict
#
# A held-out classifier two-sample test: a classifier learns on half of the texts and is tried on the others. Beside its
# AUC with the 95 % interval stands that of real texts against other real texts. Compare the two, not with 0.5.

# %%
_, generated = sample(len(unseen), seed=2)
words = [[(text or ".").split() for text in texts] for texts in (unseen, generated, real[: len(unseen)])]
verdict = controlled_test(*words[:2], tfidf_scores, held_out=words[2], seed=0)
print(f"AUC {verdict['auc']:.2f} ({verdict['auc_low']:.2f} to {verdict['auc_high']:.2f})")
print(f"real {verdict['real_auc']:.2f} ({verdict['real_auc_low']:.2f} to {verdict['real_auc_high']:.2f})")

# %%
plt.figure(figsize=(6, 2))
for row, (name, prefix) in enumerate([("real against real", "real_auc"), ("real against generated", "auc")]):
    plt.plot([verdict[f"{prefix}_low"], verdict[f"{prefix}_high"]], [row, row], color="C0")
    plt.plot(verdict[prefix], row, "o", color="C0")
    plt.text(1.02, row, name, va="center")
plt.axvline(0.5, linestyle=":", color="grey")
plt.xlim(0.3, 1)
plt.yticks([])
plt.title("Two-sample test, 95 % intervals (further left is better)")
plt.xlabel("AUC")
plt.show()
