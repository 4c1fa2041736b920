"""What a student has trained, judged by what it does: the weights come back, and the judge measures them itself.

The model is built here from what the check knows, so nothing that the student's code says about it counts: no loss,
no class, no size. PyTorch is imported when the first weights are measured, and not before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from grading.course import shown

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """Accepts a state dict whose model has a loss of at most `at_most` on data that the sandbox never saw.

    Give it as `accepts` of a question whose case reads or probes a state dict. `given_loss` measures the loss on the
    data that the lab hands out, and tells a model that has learned it by heart. `is_untrained` and `is_memorized`
    fit a Wrong's `when`.
    """

    model: Callable[[], nn.Module]
    unseen_loss: Callable[[nn.Module], float]
    at_most: float
    untrained: float  # a loss that a model without training exceeds
    given_loss: Callable[[nn.Module], float] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.at_most < self.untrained < math.inf:
            raise ValueError(f"a loss of at most {self.at_most} is wanted and {self.untrained} is called untrained; "
                             "give two numbers above 0, the smaller one first")

    def __call__(self, given: Any, expected: Any = None, case: Any = None) -> bool:
        return self.misfit(given) == "" and self._losses(given)[0] <= self.at_most

    def is_untrained(self, given: Any, expected: Any = None, case: Any = None) -> bool:
        """Whether the model has learned nothing, not even the data that was given."""
        has_loss = self.misfit(given) == "" and self._losses(given)[0] > self.untrained
        return has_loss and not self.is_memorized(given)

    def is_memorized(self, given: Any, expected: Any = None, case: Any = None) -> bool:
        """Whether the model is good on the data that was given, and only there."""
        fits = self.given_loss is not None and self.misfit(given) == ""
        return fits and self._losses(given)[1] <= self.at_most < self._losses(given)[0]

    def sentence(self, given: Any) -> str:
        """What is wrong with the weights, in a sentence for the learner; "" if nothing is."""
        if misfit := self.misfit(given):
            return misfit
        if (loss := self._losses(given)[0]) <= self.at_most:
            return ""
        return f"On data that it has not seen your model has a loss of {loss:.2f}; {self.at_most:g} is asked for."

    def misfit(self, given: Any) -> str:
        """Why the weights do not fit the model, or ""; a tensor is looked at only after its shape."""
        if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
            return "This is no state dict: give a dict of arrays by the names of the model's tensors."
        shapes = _shapes(self.model)
        if absent := [name for name in shapes if name not in given]:
            return f"The tensor {absent[0]} is missing: give the whole state dict of the model."
        if extra := [name for name in given if name not in shapes]:
            return f"The model has no tensor {shown(extra[0])[:80]}: give its state dict and nothing else."
        for name, shape in shapes.items():
            if not isinstance(given[name], np.ndarray) or given[name].dtype.kind != "f":
                return f"The tensor {name} is no array of floating-point numbers."
            if given[name].shape != shape:
                return f"The tensor {name} has the shape {given[name].shape}, and the model's has {shape}."
            if not np.isfinite(given[name]).all():
                return f"The tensor {name} holds NaN or infinity: look at when the loss became NaN."
        return ""

    def _losses(self, weights: Mapping[str, np.ndarray]) -> tuple[float, float]:
        """The loss on unseen data and on the data that was given (infinite, if it is not measured)."""
        import torch

        model = self.model()
        model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
        with torch.inference_mode():
            model.eval()
            return float(self.unseen_loss(model)), float(self.given_loss(model)) if self.given_loss else math.inf


@cache
def _shapes(model: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of the model, by name."""
    return {name: tuple(tensor.shape) for name, tensor in model().state_dict().items()}
