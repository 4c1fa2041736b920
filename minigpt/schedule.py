"""The learning rate of every step: a pure function of the settings and the step, so that there is nothing to save."""

import math

from minigpt.config import TrainConfig


def learning_rate(settings: TrainConfig, step: int) -> float:
    """A straight climb over the warm-up, then the schedule that the settings name, down to the minimum.

    Shapes  `cosine`: half a cosine from the end of the warm-up to the end of the run.
            `wsd` (warm-up, stable, decay): constant, then straight down over the last `cooldown_share` of the steps.
            Any checkpoint of the constant part can be cooled down or trained on: the length is chosen afterwards.
    Source  Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts"; Hu et al. 2024,
            "MiniCPM", section 4.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    span = settings.learning_rate - settings.min_learning_rate
    return settings.min_learning_rate + span * {"cosine": cosine, "wsd": wsd}[settings.schedule](settings, step)


def cosine(settings: TrainConfig, step: int) -> float:
    """How much of the span between the two learning rates is left, from 1 to 0."""
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return (1 + math.cos(math.pi * done)) / 2


def wsd(settings: TrainConfig, step: int) -> float:
    """How much of the span is left: all of it until the cooldown."""
    return min(1.0, (settings.steps - step) / max(1, settings.cooldown_steps))
