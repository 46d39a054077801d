"""`model.generate(..., custom_generate=<folder>, trust_remote_code=True, discriminator=<model or path>)`."""

import inspect

from hf_gpt.generation.guidance.guided_generate import guided_generate, load_discriminator


def generate(model, inputs=None, generation_config=None, discriminator=None, do_sample=None, **kwargs):
    """`model.generate` guided by `discriminator`, with the options of `guided_generate`.

    Without a discriminator, that of the residual model whose folder the generator was loaded from. Without
    `generation_config` and `do_sample` texts are sampled.
    """
    if discriminator is None:
        from transformers import AutoTokenizer

        from hf_gpt.generation.guidance.residual_model import DISCRIMINATOR, open_discriminator, read_metrics

        path = model.name_or_path
        if read_metrics(path) is not None:
            discriminator = open_discriminator(path, AutoTokenizer.from_pretrained(path), subfolder=DISCRIMINATOR).to(
                model.device
            )
    elif isinstance(discriminator, str):
        discriminator = load_discriminator(discriminator, language_model=True).to(model.device)
    if do_sample is None and generation_config is None:
        do_sample = True
    if do_sample is not None:
        kwargs["do_sample"] = do_sample
    # The library passes all of its own arguments, given or not. For others None is a value.
    own = inspect.signature(model.generate).parameters
    kwargs = {name: value for name, value in kwargs.items() if value is not None or name not in own}
    return model.generate(
        inputs, generation_config, custom_generate=guided_generate, discriminator=discriminator, **kwargs
    )
