"""Sizes of the stage and of what each arm spends."""

from dataclasses import dataclass, replace


LIKELIHOOD = "MLE, same compute"
CEILING = "perfect ratio (ceiling)"
CEILING_JSD = "perfect ratio, Jensen-Shannon (ceiling)"
OURS = "learned ratio, adversarial (ours)"
OURS_JSD = "learned ratio, adversarial, Jensen-Shannon (ours)"
STATIC = "learned ratio, fixed"
# Recipes of `hf-gpt adversarial` in capitals.
PUBLISHED = ("GAD", "GRGC")
ARMS = (OURS_JSD, OURS, STATIC, *PUBLISHED, CEILING_JSD, CEILING, LIKELIHOOD)
CEILINGS = (CEILING_JSD, CEILING)
JSD_ARMS = (OURS_JSD, CEILING_JSD)


def file_name(arm: str) -> str:
    """An arm's name, fit for a file."""
    return "".join(letter if letter.isalnum() else "_" for letter in arm.lower()).strip("_")


@dataclass(frozen=True)
class Settings:
    """The arena.

    Attributes:
        teacher, student, psi: Width and number of blocks.
        sharpness: Factor on the teacher's logits, which is part of the teacher.
        num_evaluation: Samples of the teacher, and of a student for each point of its curve.
        num_classified: Texts of each side in a two-sample test.
        more_likelihood_steps, least_improvement: The baseline goes on for so many steps again and again, at half the
            learning rate, until it has cost as many CPU-seconds as the dearest other arm, and as many FLOPs or gains
            less than this in held-out likelihood, nats per token.
        published_steps, published_warmup: Of GAD and GRGC: updates of the student, and of the discriminator before
            them.
        anchor, jsd_anchor: Weight of the likelihood beside the reverse KL and beside the Jensen-Shannon divergence.
        ratio_weight: See `LearnedRatio`.
        ratio_every: Updates of the student for each of the learned ratio.
    """

    vocab_size: int = 500
    length: int = 14
    teacher: tuple[int, int] = (96, 2)
    student: tuple[int, int] = (8, 1)
    psi: tuple[int, int] = (64, 2)
    sharpness: float = 1.2
    teacher_epochs: int = 7
    teacher_learning_rate: float = 3e-3
    num_train: int = 8000
    num_validation: int = 1000
    num_evaluation: int = 300
    num_classified: int = 1500
    batch_size: int = 128
    adversarial_batch_size: int = 64
    likelihood_steps: int = 1000
    more_likelihood_steps: int = 300
    least_improvement: float = 5e-3
    likelihood_learning_rate: float = 2e-2
    psi_steps: int = 300
    psi_learning_rate: float = 5e-3
    adversarial_steps: int = 150
    adversarial_learning_rate: float = 1e-2
    anchor: float = 1.0
    jsd_beta: float = 0.5
    jsd_anchor: float = 0.1
    ratio_learning_rate: float = 3e-4
    ratio_weight: float = 0.3
    ratio_every: int = 3
    published_steps: int = 50
    published_warmup: int = 10
    published_learning_rate: float = 2e-4
    published_discriminator_learning_rate: float = 2e-3
    temperatures: tuple[float, ...] = (1.0, 0.8, 0.65, 0.5)
    likelihood_temperatures: tuple[float, ...] = (1.0, 0.85, 0.7, 0.55, 0.4, 0.3, 0.25)

    def scaled(self, scale: float) -> "Settings":
        """The same with fewer steps and samples, for a quick look."""
        names = "num_train num_validation num_evaluation num_classified likelihood_steps psi_steps"
        names += " more_likelihood_steps adversarial_steps published_steps published_warmup"
        return replace(self, **{name: max(2, round(scale * getattr(self, name))) for name in names.split()})
