"""Published NLL_oracle at length 20, nats per token, all on SeqGAN's own oracle."""

from dataclasses import dataclass


RELGAN = "RelGAN, table 1 (openreview.net/forum?id=rJedV3R5tm)"
METAEX = "README of MetaEx-GAN (TASLP 2023)"


@dataclass(frozen=True)
class Published:
    """A value from the literature."""

    method: str
    nll_oracle: float
    source: str
    deviation: float | None = None


# MaliGAN's paper gives a plot without numbers; what others print under its name was not found at a source.
PUBLISHED: tuple[Published, ...] = (
    Published("real text", 5.750, RELGAN),
    Published("MLE", 9.038, RELGAN),
    Published("SeqGAN (arXiv:1609.05473)", 8.736, RELGAN),
    Published("RankGAN (arXiv:1705.11001)", 8.247, RELGAN),
    Published("MetaCotGAN", 7.690, METAEX),
    Published("LeakGAN (arXiv:1709.08624)", 7.038, RELGAN),
    Published("RelGAN", 6.680, RELGAN, 0.343),
    Published("MetaEx-GAN", 6.321, METAEX),
)

BEST = min((row for row in PUBLISHED if row.method != "real text"), key=lambda row: row.nll_oracle)
