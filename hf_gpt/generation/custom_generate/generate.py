"""`model.generate(..., custom_generate=<folder>, trust_remote_code=True, discriminator=<model or path>)`."""

from hf_gpt.generation.guidance import guided_generate, load_discriminator


def generate(model, inputs=None, generation_config=None, discriminator=None, do_sample=True, **kwargs):
    """As `model.generate`, guided by `discriminator`; the options are those of `guided_generate`."""
    if isinstance(discriminator, str):
        discriminator = load_discriminator(discriminator, language_model=True).to(model.device)
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    return model.generate(
        inputs,
        generation_config,
        custom_generate=guided_generate,
        discriminator=discriminator,
        do_sample=do_sample,
        **kwargs,
    )
