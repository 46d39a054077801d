"""Our discriminator as the reward of TRL's GRPOTrainer, trained on beside it."""

import pytest
import torch

from tests.adversarial.players import make_discriminator, make_generator
from tests.clients.records import record


trl = pytest.importorskip("trl", reason="needs TRL: pip install 'trl>=1.16'")


def test_grpo_with_a_discriminator_that_goes_on_learning(tmp_path, record_property):
    from datasets import Dataset

    from hf_gpt.data.tokenizer import train_tokenizer
    from training.trl_grpo import CoTrainedDiscriminator

    rows = [{"prompt": f"{n} and", "completion": f" {n + 1}"} for n in range(8)]
    tokenizer = train_tokenizer([row["prompt"] + row["completion"] for row in rows], 270)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    generator = make_generator(vocab_size=len(tokenizer), **ids)
    discriminator = make_discriminator(vocab_size=len(tokenizer), **ids)
    co_trained = CoTrainedDiscriminator(
        discriminator, tokenizer, {row["prompt"]: row["completion"] for row in rows}, 1e-2, max_completion_length=6
    )
    before = [torch.cat([p.detach().flatten().clone() for p in m.parameters()]) for m in (generator, discriminator)]
    config = trl.GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=6,
        max_steps=6,
        learning_rate=1e-2,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=False,
    )
    trainer = trl.GRPOTrainer(
        generator,
        reward_funcs=co_trained,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[co_trained.callback],
    )
    trainer.train()
    after = [torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (trainer.model, discriminator)]
    assert all(not torch.equal(old, new.cpu()) for old, new in zip(before, after, strict=True))
    assert len(co_trained.losses) == 6 and co_trained.losses[-1] < co_trained.losses[0]
    assert any("rewards/discriminator/mean" in entry for entry in trainer.state.log_history)
    metric = f"loss of the discriminator {co_trained.losses[0]:.3f} to {co_trained.losses[-1]:.3f} in 6 steps"
    compared = "a discriminator trained beside GRPOTrainer, whose reward it is"
    record(record_property, "TRL", "trl", compared, metric, package="trl")
