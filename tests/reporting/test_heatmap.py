import re

import pytest

from hf_gpt.reporting.heatmap import coloured, legend
from hf_gpt.reporting.style import STYLE


def shades(scheme):
    """Each colour of the style sheet by name, as red, green and blue from 0 to 1."""
    light, dark = STYLE.split("@media screen and (prefers-color-scheme:dark)", 1)
    found = dict(re.findall(r"--([\w-]+):(#[0-9a-f]+)", light))
    if scheme == "dark":
        found |= dict(re.findall(r"--([\w-]+):(#[0-9a-f]+)", dark.split("}}", 1)[0]))
    long = {
        name: value if len(value) == 7 else "#" + "".join(2 * digit for digit in value[1:])
        for name, value in found.items()
    }
    return {name: [int(value[i : i + 2], 16) / 255 for i in (1, 3, 5)] for name, value in long.items()}


def luminance(shade):
    """Relative luminance, WCAG 2.2."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in shade]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("html", [coloured([{"token": "a", "change": 1}, {"token": "b", "change": -1}], 1), legend()])
def test_words_are_readable_on_their_strongest_ground(html, scheme):
    colours = shades(scheme)
    grounds = re.findall(r"color-mix\(in srgb,var\(--([\w-]+)\) (\d+)%,transparent\)", html)
    assert len(grounds) == 2
    for name, percent in grounds:
        share = int(percent) / 100
        ground = [
            share * over + (1 - share) * under for over, under in zip(colours[name], colours["card"], strict=True)
        ]
        assert contrast(ground, colours["ink"]) >= 4.5
