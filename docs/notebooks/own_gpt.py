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
# # A GPT of your own
#
# After this notebook you can go from text to a tokenizer, packed rows, a trained model and new text, in the parts that
# `hf-gpt pretrain` is made of. The run is small, so that it takes a minute; raise `STEPS` for text worth reading.

# %%
import os

import matplotlib.pyplot as plt
from transformers import AutoModelForCausalLM, set_seed

from hf_gpt import HfGptConfig, HfGptForCausalLM, HfGptTrainer, HfGptTrainingArguments, fast_generate
from hf_gpt.data.collators import PackedRowsCollator
from hf_gpt.data.corpus import read_corpus, split_corpus
from hf_gpt.data.packed_dataset import tokenize_and_pack
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.training.monitoring.likelihood import total_nats


STEPS = int(os.environ.get("STEPS", 120))
LENGTH = 128
set_seed(0)

# %% [markdown]
# The corpus comes with the package; `read_corpus(["book.txt"])` reads yours: text, jsonl, csv, parquet. A part is held
# out before training.

# %%
corpus, held_out = split_corpus(read_corpus(["tinyshakespeare"]), 0.05, seed=0)
tokenizer = train_tokenizer(iter(corpus["text"]), 1024, model_max_length=LENGTH)
print(tokenizer.tokenize("To be, or not to be"))

# %% [markdown]
# Packing fills every row to the last token and never lets a token see another document.

# %%
train, validation = (tokenize_and_pack(part, tokenizer, LENGTH) for part in (corpus, held_out))
print(f"{len(train):,} rows of {LENGTH} tokens")

# %% [markdown]
# A preset is a size; `hf-gpt plan --preset mini` says what one costs before it is trained.

# %%
model = HfGptForCausalLM(
    HfGptConfig.preset(
        "nano",
        vocab_size=len(tokenizer),
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
)
print(f"{model.num_parameters():,} parameters")


def held_out_loss() -> float:
    nats, tokens = total_nats(model, validation, 16)
    return nats / tokens


before = held_out_loss()

# %% [markdown]
# `HfGptTrainer` is transformers' Trainer with Muon beside AdamW; every argument of `TrainingArguments` works.

# %%
arguments = HfGptTrainingArguments(
    output_dir="runs/own_gpt",
    max_steps=STEPS,
    per_device_train_batch_size=16,
    learning_rate=4e-3,
    logging_steps=10,
    save_strategy="no",
    report_to="none",
)
trainer = HfGptTrainer(model=model, args=arguments, train_dataset=train, data_collator=PackedRowsCollator())
trainer.train()
after = held_out_loss()
print(f"held-out loss {before:.2f} before, {after:.2f} after, nats per token")

# %%
entries = [entry for entry in trainer.state.log_history if "loss" in entry]
plt.figure(figsize=(6, 3))
plt.plot([entry["step"] for entry in entries], [entry["loss"] for entry in entries], label="training")
plt.plot([0, STEPS], [before, after], "o", label="held out")
plt.title("Loss of a small GPT on Tiny Shakespeare (lower is better)")
plt.xlabel("step")
plt.ylabel("loss, nats per token")
plt.legend()
plt.show()

# %% [markdown]
# What is saved opens by the Auto classes, here or elsewhere (`trust_remote_code=True` where hf-gpt is not installed).

# %%
trainer.save_model("runs/own_gpt/model")
tokenizer.save_pretrained("runs/own_gpt/model")
reopened = AutoModelForCausalLM.from_pretrained("runs/own_gpt/model")
ids = tokenizer("ROMEO:\n", return_tensors="pt")
text = reopened.generate(**ids, do_sample=True, temperature=0.8, max_new_tokens=40, custom_generate=fast_generate)
print(tokenizer.decode(text[0]))
