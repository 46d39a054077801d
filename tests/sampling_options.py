"""`rollout` and `grow_particles` with the fields of their `SamplingConfig` as arguments, for tables of settings."""

import dataclasses
import functools

from hf_gpt.generation.guidance import particle_filter
from hf_gpt.generation.sampling import rollout as rollouts
from hf_gpt.generation.sampling.distribution import SamplingConfig


_FIELDS = {field.name for field in dataclasses.fields(SamplingConfig)}


def _by_options(function):
    @functools.wraps(function)
    def call(*args, **options):
        fields = {name: options.pop(name) for name in _FIELDS & options.keys()}
        return function(*args, sampling=SamplingConfig(**fields), **options)

    return call


rollout = _by_options(rollouts.rollout)
grow_particles = _by_options(particle_filter.grow_particles)
