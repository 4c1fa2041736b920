"""An alarm for loss spikes: it says when a step lies far above the steps before it, and never stops a run.

Source  Median and median absolute deviation: Leys et al. 2013, "Detecting outliers: Do not use standard deviation
        around the mean, use absolute deviation around the median". Spikes and what caused them: Chowdhery et al.
        2022, "PaLM", section 5.1.
"""

import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LIMITS = {"loss": 6.0, "gradient_norm": 20.0}
"""How many deviations above the median rouse the alarm.

Over the 800 steps of the journey, which trains well, the highest were 2.7 for the loss and 16.7 for the gradient.
"""

WINDOW, ENOUGH = 128, 32
"""How many steps back the statistic looks, and how many it needs before it speaks."""


@dataclass(frozen=True)
class Spike:
    """One quantity of one step that lies far above its recent past."""

    step: int
    name: str
    value: float
    median: float
    deviations: float

    def __str__(self) -> str:
        return (f"step {self.step}: {self.name} {self.value:.4g} is {self.deviations:.0f} deviations above "
                f"{self.median:.4g}, the median of the steps before")


class Alarm:
    """Remembers the last steps; the rows of an earlier part of the run bring it to where it was."""

    def __init__(self, rows: Iterable[Mapping[str, float]] = ()) -> None:
        self.past = {name: deque((row[name] for row in rows), maxlen=WINDOW) for name in LIMITS}

    def hear(self, row: Mapping[str, float]) -> list[Spike]:
        """The spikes of a step, which then belongs to the past of the next."""
        spikes = [spike for name in LIMITS if (spike := self.compare(row, name))]
        for name, past in self.past.items():
            past.append(row[name])
        return spikes

    def compare(self, row: Mapping[str, float], name: str) -> Spike | None:
        past, value = self.past[name], row[name]
        if len(past) < ENOUGH:
            return None
        median = statistics.median(past)
        spread = deviation(past, median)
        deviations = (value - median) / spread
        return Spike(int(row["step"]), name, value, median, deviations) if deviations > LIMITS[name] else None


def deviation(values: Iterable[float], median: float) -> float:
    """What the standard deviation would be if a few of the values were not wild; at least 0.1 % of the median."""
    return max(1.4826 * statistics.median(abs(value - median) for value in values), 1e-3 * abs(median), 1e-12)
