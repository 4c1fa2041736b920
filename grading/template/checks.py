"""Checks of lab 99, a moving average.

Axes: N numbers in the series, W numbers in a window.
"""

import numpy as np

from grading.question import Call, Question, Read, Right, Wrong, close

# --- 1. The mean of each window ---


def moving_average(x, width):
    totals = np.concatenate(([0.0], np.cumsum(x)))
    return (totals[width:] - totals[:-width]) / width


def window_cases(rng):
    return [
        Call("moving_average", rng.normal(size=12), 3, label="twelve numbers in windows of three"),
        Call("moving_average", rng.normal(size=9), int(rng.integers(4, 7)), label="nine numbers in wider windows"),
        Call("moving_average", rng.normal(size=5), 1, label="windows of one number"),
        Call("moving_average", rng.normal(size=6), 6, label="one window that holds all numbers"),
    ]


WINDOW = Question(
    id="window",
    title="The mean of each window",
    points=50,
    part="core",
    teaches="average-window",
    cases=window_cases,
    expected=moving_average,
    accepts=close(1e-9),
    wrong=(
        Wrong(
            "same-length",
            'def moving_average(x, width):\n    return np.convolve(x, np.ones(width) / width, mode="same")',
            "You return as many means as there are numbers, so zeros are taken in at both ends. "
            "Keep only the windows that lie inside the series.",
        ),
        Wrong(
            "sum-not-mean",
            'def moving_average(x, width):\n    return np.convolve(x, np.ones(width), mode="valid")',
            "You return the sum of each window. Divide it by the width.",
        ),
        Wrong(
            "one-window-too-few",
            "def moving_average(x, width):\n"
            "    return np.array([x[i : i + width].mean() for i in range(len(x) - width)])",
            "Your last window is missing: the last one starts where exactly `width` numbers are left.",
        ),
        Wrong(
            "growing-window",
            "def moving_average(x, width):\n"
            "    return np.array([x[max(0, i + 1 - width) : i + 1].mean() for i in range(len(x))])",
            "Your first windows hold fewer than `width` numbers. Begin with the first that is full.",
        ),
    ),
    right=(
        Right(
            "loop",
            """def moving_average(x, width):
    means = []
    for start in range(len(x) - width + 1):
        means.append(sum(x[start : start + width]) / width)
    return means""",
        ),
        Right(
            "windows",
            "def moving_average(x, width):\n"
            "    return np.lib.stride_tricks.sliding_window_view(x, width).mean(axis=1)",
        ),
        Right(
            "convolution",
            'def moving_average(x, width):\n    return np.convolve(x, np.full(width, 1 / width), mode="valid")',
        ),
    ),
    hints=(
        'The section "What does a moving average keep?" builds the first two means by hand.',
        "The sum of a window is the difference of two running totals: which ones?",
        "`totals = np.concatenate(([0.0], np.cumsum(x)))`",
    ),
)


# --- 2. What the slow form reads ---

READS = Question(
    id="reads",
    title="What the slow form reads",
    points=20,
    part="core",
    teaches="average-cost",
    cases=lambda rng: [Read("answer_reads")],
    expected=(1000 - 50 + 1) * 50,
    wrong=(
        Wrong(
            "window-at-every-number",
            "answer_reads = 1000 * 50",
            "You let a window start at every number. The last ones would reach beyond the end of the series.",
        ),
        Wrong(
            "one-window-too-few",
            "answer_reads = (1000 - 50) * 50",
            "You count one window too few: the number of starts is a difference plus one.",
        ),
        Wrong(
            "windows-not-reads",
            "answer_reads = 1000 - 50 + 1",
            "You count the windows. Each of them reads all the numbers that it holds.",
        ),
    ),
    hints=(
        "The `range` in the slow form says how many windows there are.",
        "Windows, times numbers in each window.",
        "`windows = 1000 - 50 + 1`",
    ),
)


# --- 3 and the growth record ---

WEEK = Question(
    id="week",
    title="What seven days hide",
    points=20,
    part="stretch",
    teaches="average-window",
    written=True,
    rubric=(
        "8 points: every window of 7 holds each weekday once, so the Saturday adds the same to every mean. "
        "6 points: a window of 6 lacks one weekday, so the pattern remains. "
        "6 points: it is upside down, because the windows without the Saturday are the low ones."
    ),
)

GROWTH_RECORD = Question(
    id="growth-record",
    title="Growth record",
    points=10,
    part="record",
    teaches="average-record",
    written=True,
    rubric=(
        "2 points for each of the five lines: the failure is concrete and was made in this lab; a measured number "
        "shows it; the cause names the formula that predicts it; the repair says what was changed; the same "
        "measurement after the repair proves it. A line without a number of its own earns 1."
    ),
)

QUESTIONS = [WINDOW, READS, WEEK, GROWTH_RECORD]
