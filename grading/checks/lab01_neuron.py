"""Checks of lab 01, one neuron.

Axes: B examples, D inputs of a neuron, F neurons in a layer.
"""

import numpy as np

from grading.question import Call, Probe, Question, Read, Right, Wrong, close

MPC = "0.032 0.034 0.214 0.263 0.275 0.275 0.45 0.5 0.5 0.63 0.8 0.9 0.9 0.9 0.9 1.0 1.1 1.1 1.4 1.7 2.0 2.0 2.0 2.0"
DISTANCE = np.array([float(word) for word in MPC.split()])  # Hubble 1929, table 1


# --- 1. A neuron that says no ---


def neuron(X, w, b):
    return np.tanh(X @ w + b)


def forward_cases(rng):
    return [
        Call("neuron", rng.normal(size=(5, 3)), rng.normal(size=3), -0.8, label="a negative bias"),
        Call("neuron", rng.normal(size=(4, 2)), rng.normal(size=2), 0.6, label="a positive bias"),
        Call("neuron", rng.normal(size=(1, 4)), rng.normal(size=4), 0.3, label="a single row"),
        Call("neuron", np.zeros((2, 3)), rng.normal(size=3), 0.9, label="inputs that are all 0"),
    ]


FORWARD = Question(
    id="forward",
    title="A neuron that says no",
    points=10,
    part="core",
    teaches="neuron-forward",
    cases=forward_cases,
    expected=neuron,
    wrong=(
        Wrong(
            "no-bias",
            "def neuron(X, w, b):\n    return np.tanh(X @ w)",
            "Your neuron leaves out the bias: with inputs that are all 0 it can only answer 0. "
            "Add b to the dot product before you bend.",
        ),
        Wrong(
            "bias-after-the-bend",
            "def neuron(X, w, b):\n    return np.tanh(X @ w) + b",
            "You add the bias after the bend, so some answers lie outside -1 to 1. "
            "The bias belongs to the pre-activation, inside tanh.",
        ),
        Wrong(
            "sigmoid",
            "def neuron(X, w, b):\n    return 1 / (1 + np.exp(-(X @ w + b)))",
            "This is the chapter's sigmoid neuron, which cannot say no: its answers are never negative. "
            "This one bends with np.tanh.",
        ),
        Wrong(
            "one-answer-for-all",
            "def neuron(X, w, b):\n    return np.tanh(np.sum(X * w) + b)",
            "You add up all rows into a single answer. Each row is an example of its own: "
            "add along the inputs only, and return one answer per row.",
        ),
        Wrong(
            "no-bend",
            "def neuron(X, w, b):\n    return X @ w + b",
            "You return the pre-activation, which can be any number. Bend it with np.tanh as the last step.",
        ),
    ),
    right=(
        Right(
            "loop",
            """def neuron(X, w, b):
    answers = []
    for row in X:
        z = b
        for x_j, w_j in zip(row, w):
            z = z + x_j * w_j
        answers.append(np.tanh(z))
    return answers""",
        ),
        Right("sum-along-inputs", "def neuron(X, w, b):\n    return np.tanh((X * w).sum(axis=1) + b)"),
        Right(
            "from-exponentials",
            """def neuron(X, w, b):
    grow = np.exp(2 * (np.dot(X, w) + b))
    return (grow - 1) / (grow + 1)""",
        ),
    ),
    hints=(
        'The first code cell under "What does a neuron compute?" does the same with another bend.',
        "First one number z for each row, then bend all of them at once: which product of X and w has B entries?",
        "`z = X @ w + b`",
    ),
)


# --- 2. Exactly so tolerant ---


def bias_for(X, w, k):
    evidence = np.sort(X @ w)[::-1]
    return -(evidence[k - 1] + evidence[k]) / 2


def fires_on_k_rows(given, expected, case):
    """Whether the neuron fires on exactly k rows with this bias; a row within rounding of 0 may count as 0."""
    X, w, k = case.args
    try:
        z = X @ w + float(np.asarray(given).reshape(()))
    except (TypeError, ValueError, OverflowError):
        return False
    return k in (np.sum(z > 0), np.sum(z > 1e-12))


def rows_apart(rng, B, D, k):
    """Rows and weights whose dot products are at least 0.05 apart, and for which the weights matter."""
    while True:
        X, w = rng.normal(size=(B, D)), rng.normal(size=D)
        without_weights = bias_for(X, np.ones(D), k)
        if np.min(np.diff(np.sort(X @ w))) > 0.05 and np.sum(X @ w + without_weights > 0) != k:
            return X, w


def tolerance_cases(rng):
    sizes = ((6, 2, 2, "k = 2 of 6 rows"), (7, 3, 1, "k = 1"), (8, 3, 6, "k = 6 of 8 rows"), (5, 1, 3, "one input"))
    return [Call("bias_for", *rows_apart(rng, B, D, k), k, label=label) for B, D, k, label in sizes]


TOLERANCE = Question(
    id="tolerance",
    title="Exactly so tolerant",
    points=10,
    part="core",
    teaches="neuron-bias",
    cases=tolerance_cases,
    expected=bias_for,
    accepts=fires_on_k_rows,
    wrong=(
        Wrong(
            "tolerance-as-bias",
            """def bias_for(X, w, k):
    evidence = np.sort(X @ w)[::-1]
    return (evidence[k - 1] + evidence[k]) / 2""",
            "You return the tolerance itself. The bias is its negative: a neuron that tolerates more has a lower bias.",
        ),
        Wrong(
            "on-the-border",
            """def bias_for(X, w, k):
    return -np.sort(X @ w)[::-1][k - 1]""",
            "Your tolerance equals the evidence of the k-th row, so that row has z = 0 and does not fire: "
            "one row too few. Put the tolerance between two neighbors.",
        ),
        Wrong(
            "one-too-many",
            """def bias_for(X, w, k):
    evidence = np.sort(X @ w)[::-1]
    return -(evidence[k] + evidence[k + 1]) / 2""",
            "The neuron fires on one row too many: Python counts from 0, "
            "so the k-th largest evidence stands at place k - 1.",
        ),
        Wrong(
            "smallest-first",
            """def bias_for(X, w, k):
    evidence = np.sort(X @ w)
    return -(evidence[k - 1] + evidence[k]) / 2""",
            "You leave k rows silent and let the others fire. np.sort puts the smallest evidence first; "
            "the rows that fire are those with the largest.",
        ),
        Wrong(
            "no-weights",
            """def bias_for(X, w, k):
    evidence = np.sort(X.sum(axis=1))[::-1]
    return -(evidence[k - 1] + evidence[k]) / 2""",
            "You add up the inputs without their weights. The evidence of a row is the dot product w · x.",
        ),
    ),
    right=(
        Right("at-the-next-row", "def bias_for(X, w, k):\n    return -sorted(X @ w, reverse=True)[k]"),
        Right(
            "search",
            """def bias_for(X, w, k):
    evidence = [sum(a * c for a, c in zip(row, w)) for row in X]
    for candidate in evidence:
        bias = -(candidate + 1e-6)
        if sum(e + bias > 0 for e in evidence) == k:
            return bias""",
        ),
        Right(
            "raise-bit-by-bit",
            """def bias_for(X, w, k):
    bias = -np.max(X @ w) - 1
    while np.sum(X @ w + bias > 0) < k:
        bias += 0.01
    return bias""",
        ),
    ),
    hints=(
        '"Read it as a tolerance" in the section on the bias: the neuron keeps quiet as long as w · x stays under -b.',
        "Put the rows in the order of their evidence w · x; the tolerance -b has to lie between two neighbors.",
        "`evidence = np.sort(X @ w)[::-1]`",
    ),
)


# --- 3. Its gradient ---


def gradient(X, y, w, b):
    a = np.tanh(X @ w + b)
    dz = 2 * (a - y) * (1 - a**2) / len(y)  # (B,)
    return dz @ X, dz.sum()


def gradient_cases(rng):
    def call(B, D, b, label):
        return Call("gradient", rng.normal(size=(B, D)), rng.uniform(-1, 1, B), rng.normal(size=D) / 2, b, label=label)

    return [
        call(5, 3, 0.3, "several rows"),
        call(4, 1, -0.4, "a single input"),
        call(1, 2, 0.5, "a single row"),
    ]


def gradient_with(dz):
    """An answer to exercise 3 in which the first two links are this expression."""
    return f"""def gradient(X, y, w, b):
    a = np.tanh(X @ w + b)
    dz = {dz}
    return dz @ X, dz.sum()"""


GRADIENT = Question(
    id="gradient",
    title="Its gradient",
    points=15,
    part="core",
    teaches="neuron-gradient",
    cases=gradient_cases,
    expected=gradient,
    wrong=(
        Wrong(
            "sigmoid-link",
            gradient_with("2 * (a - y) * a * (1 - a) / len(y)"),
            "Your middle link is the sigmoid's, a (1 - a). This neuron bends with tanh: "
            "replace that link by the slope of tanh.",
        ),
        Wrong(
            "no-middle-link",
            gradient_with("2 * (a - y) / len(y)"),
            "The middle link of the chain is missing: you go from the loss straight to z, "
            "as if the neuron did not bend.",
        ),
        Wrong(
            "sum-not-mean",
            gradient_with("2 * (a - y) * (1 - a**2)"),
            "You add up over the rows, but the loss is a mean: your gradient grows with the number of rows.",
        ),
        Wrong(
            "uphill",
            gradient_with("2 * (y - a) * (1 - a**2) / len(y)"),
            "Your gradient has the right size and points the wrong way: the slope of (a - y) squared is 2 (a - y).",
        ),
        Wrong(
            "no-two",
            gradient_with("(a - y) * (1 - a**2) / len(y)"),
            "Your gradient is half as long as it should be: the slope of a square brings a factor of 2.",
        ),
        Wrong(
            "mean-for-the-bias-only",
            """def gradient(X, y, w, b):
    a = np.tanh(X @ w + b)
    dz = 2 * (a - y) * (1 - a**2)
    return dz @ X, np.mean(dz)""",
            "You take the mean for the bias, but by the weights you add up over the rows: "
            "divide that sum by the number of rows, too.",
        ),
    ),
    right=(
        Right(
            "loop",
            """def gradient(X, y, w, b):
    by_w, by_b = [0.0] * len(w), 0.0
    for row, target in zip(X, y):
        a = np.tanh(sum(x * v for x, v in zip(row, w)) + b)
        link = 2 * (a - target) * (1 - a * a)
        by_b += link / len(y)
        for j, x in enumerate(row):
            by_w[j] += link * x / len(y)
    return by_w, by_b""",
        ),
        Right(
            "mean-and-transpose",
            """def gradient(X, y, w, b):
    z = X @ w + b
    link = 2 * (np.tanh(z) - y) / np.cosh(z) ** 2
    return [X.T @ link / X.shape[0], np.mean(link)]""",
        ),
    ),
    hints=(
        "The table with the three links in the section on the gradient, and the code below it.",
        "Only one link differs from the sigmoid's: replace it, keep the other two, and take the mean over the rows.",
        "`a = np.tanh(X @ w + b)`",
    ),
)


# --- 4. Slopes by measurement ---

MEASURE = """
def f(p):
    return float(np.sum(cubes * p**3) + p[0] * p[-1] + np.sin(p[-1]))


point = start.copy()
slopes = measured_slopes(f, point)
answer = [slopes, point]
"""


def slopes_and_point(cubes, start):
    slopes = 3 * cubes * start**2
    slopes[0] += start[-1]
    slopes[-1] += start[0] + np.cos(start[-1])
    return [slopes, start]


def slopes_cases(rng):
    def probe(D, label):
        inputs = {"cubes": rng.uniform(1, 2, D), "start": rng.uniform(0.5, 1.5, D)}
        return Probe(MEASURE, inputs, label=label)

    return [probe(3, "a function of three numbers"), probe(5, "a function of five numbers")]


SLOPES = Question(
    id="slopes",
    title="Slopes by measurement",
    points=15,
    part="core",
    teaches="neuron-check",
    cases=slopes_cases,
    expected=slopes_and_point,
    wrong=(
        Wrong(
            "forward",
            """def measured_slopes(f, point, h=1e-5):
    slopes = np.zeros(len(point))
    for i in range(len(point)):
        step = np.zeros(len(point))
        step[i] = h
        slopes[i] = (f(point + step) - f(point)) / h
    return slopes""",
            "This is the forward difference: its error shrinks only like h, and 1e-6 is out of reach at h = 1e-5. "
            "Measure on both sides of the point.",
        ),
        Wrong(
            "all-at-once",
            """def measured_slopes(f, point, h=1e-5):
    slopes = np.zeros(len(point))
    for i in range(len(point)):
        slopes[i] = (f(point + h) - f(point - h)) / (2 * h)
    return slopes""",
            "All your slopes are the same, because point + h moves every entry. Move entry i alone.",
        ),
        Wrong(
            "half-the-distance",
            """def measured_slopes(f, point, h=1e-5):
    slopes = np.zeros(len(point))
    for i in range(len(point)):
        step = np.zeros(len(point))
        step[i] = h
        slopes[i] = (f(point + step) - f(point - step)) / h
    return slopes""",
            "Your slopes are twice too large: from point - h to point + h it is 2 h.",
        ),
        Wrong(
            "never-put-back",
            """def measured_slopes(f, point, h=1e-5):
    slopes = np.zeros(len(point))
    for i in range(len(point)):
        point[i] += h
        above = f(point)
        point[i] -= 2 * h
        below = f(point)
        slopes[i] = (above - below) / (2 * h)
    return slopes""",
            "You move the entries of the point and do not put them back: "
            "the later slopes belong to another point, and the caller's vector has changed.",
        ),
    ),
    right=(
        Right(
            "move-and-put-back",
            """def measured_slopes(f, point, h=1e-5):
    slopes = []
    for i, kept in enumerate(point):
        point[i] = kept + h
        above = f(point)
        point[i] = kept - h
        below = f(point)
        point[i] = kept
        slopes.append((above - below) / (2 * h))
    return slopes""",
        ),
        Right(
            "rows-of-the-identity",
            """def measured_slopes(f, point, h=1e-5):
    steps = h * np.eye(len(point))
    return np.array([f(point + step) - f(point - step) for step in steps]) / (2 * h)""",
        ),
    ),
    hints=(
        "`central_difference` in the section on checking moves one number; here there are D of them.",
        "Build a step that is 0 everywhere except at entry i, and add it to the point without touching the point.",
        "`slopes = np.zeros(len(point))`",
    ),
)


# --- 5. Which neurons are dead? ---


def dead(X, W, b):
    return np.all(X @ W.T + b <= 0, axis=0)


def dead_cases(rng):
    """Layers of whole numbers in which the best example of neuron f has exactly the pre-activation `best[f]`."""

    def call(B, D, best, label):
        X, W = rng.integers(-3, 4, (B, D)).astype(float), rng.integers(-3, 4, (len(best), D)).astype(float)
        W[:, 0], X[0, 0], X[1, 0] = 1, 4, -4  # so that no neuron has the same pre-activation on every example
        best = rng.permutation(best)
        return Call("dead", X, W, best - np.max(X @ W.T, axis=0), label=label)

    return [
        call(6, 3, [2.0, 1.0, -1.0, -2.0], "a layer with dead and living neurons"),
        call(7, 2, [1.0, 1.0, 0.0, -3.0, 0.0], "a neuron whose best pre-activation is exactly 0"),
        call(3, 4, [3.0, 1.0], "a layer in which all neurons live"),
    ]


DEAD = Question(
    id="dead",
    title="Which neurons are dead?",
    points=10,
    part="core",
    teaches="neuron-dead",
    cases=dead_cases,
    expected=dead,
    wrong=(
        Wrong(
            "any-example",
            "def dead(X, W, b):\n    return np.any(X @ W.T + b <= 0, axis=0)",
            "You call a neuron dead if it is silent on any example. "
            "One example on which it fires is enough to teach it: dead means silent on all.",
        ),
        Wrong(
            "living",
            "def dead(X, W, b):\n    return np.any(X @ W.T + b > 0, axis=0)",
            "Your answer is the wrong way round: it marks the living neurons.",
        ),
        Wrong(
            "no-bias",
            "def dead(X, W, b):\n    return np.all(X @ W.T <= 0, axis=0)",
            "You leave out the bias. A neuron dies when its tolerance, the negative of the bias, exceeds all evidence.",
        ),
        Wrong(
            "below-zero-only",
            "def dead(X, W, b):\n    return np.all(X @ W.T + b < 0, axis=0)",
            "You miss neurons whose best pre-activation is exactly 0: there the slope of the ReLU is 0, too.",
        ),
        Wrong(
            "per-example",
            "def dead(X, W, b):\n    return np.all(X @ W.T + b <= 0, axis=1)",
            "You give one entry for each example. Neurons are the columns of the table X @ W.T: "
            "ask down each column, along axis 0.",
        ),
    ),
    right=(
        Right(
            "loop",
            """def dead(X, W, b):
    found = []
    for weights, bias in zip(W, b):
        found.append(all(row @ weights + bias <= 0 for row in X))
    return found""",
        ),
        Right("largest", "def dead(X, W, b):\n    return np.max(W @ X.T, axis=1) + b <= 0"),
        Right("relu", "def dead(X, W, b):\n    return np.maximum(0, X @ W.T + b).sum(axis=0) == 0"),
    ),
    hints=(
        "The definition of a dead neuron: z is 0 or less on every flight.",
        "Make the table of all pre-activations, one row per example and one column per neuron, "
        "then ask something of each column.",
        "`z = X @ W.T + b`",
    ),
)


# --- 6. The cliff of the sky ---

CLIFF = Question(
    id="cliff",
    title="The cliff of the sky",
    points=10,
    part="core",
    teaches="neuron-cliff",
    cases=lambda rng: [Read("answer_cliff")],
    expected=float(1 / np.mean(DISTANCE**2)),
    accepts=close(0.004),
    wrong=(
        Wrong(
            "best-rate",
            "answer_cliff = 1 / (2 * np.mean(distance**2))",
            "This is the best rate, 1/c, at which one step arrives. The cliff lies where the factor 1 - ηc is -1.",
        ),
        Wrong(
            "curvature-without-2",
            "answer_cliff = 2 / np.mean(distance**2)",
            "Your curvature lacks a factor of 2: it is the slope of the slope of a mean of squares.",
        ),
        Wrong(
            "sum-not-mean",
            "answer_cliff = 1 / np.sum(distance**2)",
            "You add up over the galaxies, but the loss is a mean: your cliff is 24 times too early.",
        ),
        Wrong(
            "mean-then-square",
            "answer_cliff = 1 / np.mean(distance) ** 2",
            "You square the mean of the distances. The curvature is made of the mean of their squares.",
        ),
        Wrong(
            "velocity",
            "answer_cliff = 1 / np.mean(velocity**2)",
            "You took the velocities, which are the targets. The cliff depends on the inputs alone.",
        ),
    ),
    hints=(
        "The section on the cliff gives the rate in terms of the curvature, and the curvature in terms of the inputs.",
        "The targets do not matter for the cliff: which single number of the distances is the curvature made of?",
        "`curvature = 2 * np.mean(distance**2)`",
    ),
)


# --- 7. What a check costs ---

PRICE = Question(
    id="price",
    title="What a check costs",
    points=10,
    part="stretch",
    teaches="neuron-check",
    cases=lambda rng: [Read("answer_days")],
    expected=2 * 1.1e9 * 0.1 / 86_400,
    accepts=close(0.005),
    wrong=(
        Wrong(
            "one-each",
            "answer_days = 1.1e9 * 0.1 / 86400",
            "You count one loss for each parameter. A central difference needs two, one on either side.",
        ),
        Wrong(
            "seconds",
            "answer_days = 2 * 1.1e9 * 0.1",
            "This is the time in seconds; the question asks for days.",
        ),
        Wrong(
            "hours",
            "answer_days = 2 * 1.1e9 * 0.1 / 3600",
            "This is the time in hours; the question asks for days.",
        ),
        Wrong(
            "losses-per-second",
            "answer_days = 2 * 1.1e9 / 0.1 / 86400",
            "You divide by the time of one loss. Each loss takes 0.1 seconds, so multiply by it.",
        ),
    ),
    hints=(
        'The exercise "The price of a check" counts the losses for a neuron with D weights and a bias.',
        "Losses per parameter, times parameters, times seconds per loss; then seconds into days.",
        "`losses = 2 * 1.1e9`",
    ),
)


# --- 8 and the growth record ---

WHY_DEAD = Question(
    id="why-dead",
    title="Why it stays dead",
    points=10,
    part="stretch",
    teaches="neuron-dead",
    written=True,
    hints=(
        'The section on dead neurons, from "Put this into the chain" to the two repairs.',
        "Write down the step as a product, and ask which factor is 0 and who can change it.",
        '"On every example the pre-activation is not positive, so ..."',
    ),
    rubric=(
        "3 points: on every example the pre-activation is not positive, so the ReLU's link in the chain is 0 "
        "and the whole gradient is exactly 0. "
        "2 points: a step is rate times gradient, so neither the rate nor the number of steps can matter. "
        "3 points: the bias is the negative of the tolerance; raising it makes some pre-activations positive, "
        "and those examples teach again. "
        "2 points: dead and slow differ in the gradient or in the change of the weights after one step "
        "(exactly 0 against small)."
    ),
)

GROWTH_RECORD = Question(
    id="growth-record",
    title="Growth record",
    points=10,
    part="record",
    teaches="neuron-record",
    written=True,
    rubric=(
        "2 points for each of the five lines: the failure is concrete and was made in this lab; a measured number "
        "shows it; the cause names the formula that predicts it; the repair says what was changed; the same "
        "measurement after the repair proves it. Of lines 1, 2 and 5 each without a number of its own earns 1."
    ),
)

QUESTIONS = [FORWARD, TOLERANCE, GRADIENT, SLOPES, DEAD, CLIFF, PRICE, WHY_DEAD, GROWTH_RECORD]
