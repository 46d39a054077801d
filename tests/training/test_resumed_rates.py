"""The rate of the first step after a resumption, before the schedule itself has stepped."""

import pytest
import torch
from transformers import get_linear_schedule_with_warmup

from hf_gpt.training.resumption.resumed_rates import settings_of, take_effect


def make(steps: int, rate: float = 0.4, **options):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=rate, **options)
    return optimizer, get_linear_schedule_with_warmup(optimizer, 0, steps)


def resumed(steps: int, former, **options):
    optimizer, scheduler = make(steps, **options)
    settings = settings_of(optimizer)
    optimizer.load_state_dict(former[0].state_dict())
    scheduler.load_state_dict(former[1].state_dict())
    take_effect(optimizer, scheduler, settings)
    return optimizer, scheduler


@pytest.mark.parametrize(("steps", "rate", "expected"), [(12, 0.4, 0.2), (6, 0.4, 0.0), (8, 0.8, 0.2)])
def test_a_longer_run_goes_on_at_its_own_rate(steps: int, rate: float, expected: float):
    former = make(6)
    for _ in range(6):
        former[0].step()
        former[1].step()
    assert former[0].param_groups[0]["lr"] == 0
    optimizer, scheduler = resumed(steps, former, rate=rate)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)
    assert scheduler.get_last_lr() == pytest.approx([expected])
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(max(0.0, rate * (1 - 7 / steps)))


def test_settings_are_those_of_now():
    former = make(6, weight_decay=0.1, betas=(0.9, 0.9))
    optimizer, _ = resumed(6, former, weight_decay=0.3, betas=(0.8, 0.95))
    assert optimizer.param_groups[0]["weight_decay"] == 0.3
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.95)
