import pytest
import torch


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Two tiny generators and a discriminator, each with the same tokenizer, by name."""
    import transformers

    import hf_gpt
    from hf_gpt.data.tokenizer import train_tokenizer

    assert hf_gpt.__version__
    tokenizer = train_tokenizer(["the man runs near a red bus . two dogs sit on the grass by the street ."], 300)
    found = {}
    kinds = {
        "one": "AutoModelForCausalLM",
        "two": "AutoModelForCausalLM",
        "discriminator": "AutoModelForSequenceClassification",
    }
    for seed, (name, auto_class) in enumerate(kinds.items()):
        torch.manual_seed(seed)
        config = transformers.AutoConfig.for_model(
            "hf_gpt",
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=192,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.3,
            num_labels=1,
        )
        found[name] = tmp_path_factory.mktemp(name) / name
        getattr(transformers, auto_class).from_config(config).save_pretrained(found[name])
        tokenizer.save_pretrained(found[name])
    return found
