# %% [markdown]
# # Its critic, and both against each other
#
# A critic learns to tell real text from what a GPT writes; then it chooses among drafts; then the two are trained
# against each other. At the end a classifier that neither has met says whether anything was gained. Figures are small
# again: raise `STEPS` for a verdict worth having, and see docs/results.md for ours.
#
# This file is a notebook: Jupyter (with jupytext), VS Code and PyCharm open it cell by cell.

# %%
import os
import random

import torch
from transformers import set_seed

from hf_gpt import (
    AdversarialConfig,
    AdversarialTrainer,
    HfGptConfig,
    HfGptForCausalLM,
    SamplingConfig,
    make_discriminator,
    rollout,
    train_discriminator,
)
from hf_gpt.data.corpus import read_corpus
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.evaluation.two_sample.classifier_test import controlled_test
from hf_gpt.evaluation.two_sample.tfidf_classifier import tfidf_scores
from hf_gpt.generation.guidance.selection import best_of
from hf_gpt.generation.scoring.discriminator import sequence_scores


STEPS = int(os.environ.get("STEPS", 12))
LENGTH = 24
set_seed(0)

# %% [markdown]
# Real texts: single lines of Shakespeare, half of them to learn from.

# %%
lines = [line for text in read_corpus(["tinyshakespeare"])["text"] for line in text.split("\n") if len(line) > 20]
# From all over the plays: the lines that follow those learnt from would be about something else.
lines = random.Random(0).sample(list(dict.fromkeys(lines)), 1200)
real, unseen = lines[:1000], lines[1000:1200]
tokenizer = train_tokenizer(iter(real), 400, model_max_length=LENGTH + 1)
begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
ids = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": pad}
generator = HfGptForCausalLM(
    HfGptConfig.preset("nano", vocab_size=len(tokenizer), max_position_embeddings=LENGTH + 1, **ids)
)

# %% [markdown]
# ## Likelihood first
#
# The trainer of the game has a warm-up by likelihood. Here it is all there is, and the estimator needs no critic.

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
    sampling = SamplingConfig(max_new_tokens=LENGTH, num_return_sequences=count, **ids)
    samples = rollout(generator, sampling=sampling, generator=torch.Generator().manual_seed(seed))
    return samples, tokenizer.batch_decode(samples.completions, skip_special_tokens=True)


print("\n".join(sample(3)[1]))

# %% [markdown]
# ## The critic
#
# `ngram_cnn` is the quickest on little data; any model with one label can be one. Its AUC on texts that it has not seen
# is how well real and generated can be told apart: 0.5 would be not at all.

# %%
discriminator = make_discriminator("ngram_cnn", generator)
pieces = tokenizer(real, truncation=True, max_length=LENGTH - 1, add_special_tokens=False)["input_ids"]
encoded = [{"prompt_ids": [begin], "completion_ids": [*some, end]} for some in pieces]
found = train_discriminator(generator, discriminator, encoded, max_new_tokens=LENGTH, epochs=2, seed=0)
print(f"held-out AUC {found.auc:.2f}")

# %% [markdown]
# Without training anything more, the critic takes the best of four drafts.

# %%
samples, drafts = sample(80)
scores = sequence_scores(discriminator, samples.sequences, samples.attention_mask)
chosen = [drafts[4 * row + position] for row, position in enumerate(best_of(scores.view(20, 4)).tolist())]
print("\n".join(chosen[:3]))

# %% [markdown]
# ## Both against each other
#
# The gate keeps the generator still while the critic cannot tell texts apart; the likelihood of real text stays in its
# loss.

# %%
arguments = AdversarialConfig(
    output_dir="runs/adversarial", max_steps=STEPS, discriminator_warmup_steps=2, lambda_mle=0.5, **common
)
trainer = AdversarialTrainer(
    model=generator, discriminator=discriminator, args=arguments, train_dataset=rows, processing_class=tokenizer
)
trainer.train()

# %% [markdown]
# ## The verdict
#
# A classifier trained afresh on half of the texts, tried on the others, with its 95 % interval. Beside it the same for
# real texts in the place of the generated ones: what the generator's AUC is to be held against.

# %%
_, generated = sample(len(unseen), seed=2)
words = [[(text or ".").split() for text in texts] for texts in (unseen, generated, real[: len(unseen)])]
verdict = controlled_test(*words[:2], tfidf_scores, held_out=words[2], seed=0)
print(f"AUC {verdict['auc']:.2f} ({verdict['auc_low']:.2f} to {verdict['auc_high']:.2f})")
print(f"real {verdict['real_auc']:.2f} ({verdict['real_auc_low']:.2f} to {verdict['real_auc_high']:.2f})")
