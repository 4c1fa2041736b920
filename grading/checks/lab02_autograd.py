"""Checks of lab 02, autograd.

Axes: B examples, D inputs, F neurons in the hidden layer.
"""

import numpy as np

from grading.question import Call, Probe, Question, Read, Right, Wrong, close

# --- 1. Who comes first? ---


def order(graph, last):
    ordered = []

    def visit(name):
        if name not in ordered:
            for parent in graph[name]:
                visit(parent)
            ordered.append(name)

    visit(last)
    return ordered


def is_an_order(given, expected, case):
    """Whether each name behind the last one stands there once, after its parents. Many orders are right."""
    graph, _ = case.args
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
        return False
    if len(given) != len(expected) or set(given) != set(expected):
        return False
    place = {name: i for i, name in enumerate(given)}
    return all(place[parent] < place[name] for name in given for parent in graph[name])


def renamed(rng, graph, last):
    """The graph under fresh names and in another order of its lines."""
    letters = rng.permutation(list("abcdefghijklmnopqrstuvwxyz"))
    names = {name: f"{letters[i]}{rng.integers(10)}" for i, name in enumerate(graph)}
    lines = [(names[name], [names[parent] for parent in parents]) for name, parents in graph.items()]
    return dict(lines[i] for i in rng.permutation(len(lines))), names[last]


CHAIN = {"x": [], "h": ["x"], "z": ["h"], "L": ["z"]}
TWICE = {"w": [], "x": [], "e": ["w", "x"], "L": ["e", "e"]}
EARLY_AND_LATE = {"w": [], "h": ["w"], "s": ["h"], "t": ["s"], "L": ["t", "h"]}
LATE_AND_EARLY = EARLY_AND_LATE | {"L": ["h", "t"]}
BESIDE = {"w": [], "b": [], "z": ["w", "b"], "L": ["z"], "u": ["z"], "v": ["u", "b"]}


def order_cases(rng):
    graphs = (
        (EARLY_AND_LATE, "L", "a value that is used early and late"),
        (LATE_AND_EARLY, "L", "the same with the parents in the other order"),
        (TWICE, "L", "a value that is used twice"),
        (BESIDE, "L", "a graph with values that the last one does not use"),
        (CHAIN, "L", "a chain"),
    )
    return [Call("order", *renamed(rng, graph, last), label=label) for graph, last, label in graphs]


ORDER = Question(
    id="order",
    title="Who comes first?",
    points=12,
    part="core",
    teaches="autograd-backward",
    cases=order_cases,
    expected=order,
    accepts=is_an_order,
    wrong=(
        Wrong(
            "children-first",
            """def order(graph, last):
    ordered = []
    def visit(name):
        if name not in ordered:
            for parent in graph[name]:
                visit(parent)
            ordered.append(name)
    visit(last)
    return ordered[::-1]""",
            "Your list begins with the last value. It is the order in which slopes are handed on; the question asks "
            "for the order of computing, with every value after its parents.",
        ),
        Wrong(
            "repeats",
            """def order(graph, last):
    ordered = []
    for parent in graph[last]:
        ordered += order(graph, parent)
    return ordered + [last]""",
            "A value that is used twice stands in your list twice, and would hand its slope on twice. "
            "Look whether a name is there already before you add it.",
        ),
        Wrong(
            "level-by-level",
            """def order(graph, last):
    found = [last]
    for name in found:
        for parent in graph[name]:
            if parent not in found:
                found.append(parent)
    return found[::-1]""",
            "You collect level by level, from the last value down, and turn the list around. A value that is used "
            "early and late is met too soon, and then stands after a value that was computed from it.",
        ),
        Wrong(
            "names-before-parents",
            """def order(graph, last):
    ordered = []
    def visit(name):
        if name not in ordered:
            ordered.append(name)
            for parent in graph[name]:
                visit(parent)
    visit(last)
    return ordered[::-1]""",
            "You add a name before you visit its parents, and turn the list around. That works on a chain, but a value "
            "that is used early and late can end up after one that was computed from it. Add a name after its parents.",
        ),
        Wrong(
            "everything",
            """def order(graph, last):
    ordered = []
    def visit(name):
        if name not in ordered:
            for parent in graph[name]:
                visit(parent)
            ordered.append(name)
    for name in graph:
        visit(name)
    return ordered""",
            "You list every value of the graph. Asked for are the last one and those behind it: "
            "a value that it was not computed from has no slope to receive.",
        ),
        Wrong(
            "one-level",
            "def order(graph, last):\n    return list(dict.fromkeys(graph[last])) + [last]",
            "You list the last value and its parents. The parents have parents, too: visit each of them the same way.",
        ),
    ),
    right=(
        Right(
            "ready-first",
            """def order(graph, last):
    behind = {last}
    waiting = [last]
    while waiting:
        for parent in graph[waiting.pop()]:
            if parent not in behind:
                behind.add(parent)
                waiting.append(parent)
    ordered = []
    while len(ordered) < len(behind):
        for name in sorted(behind):
            if name not in ordered and all(parent in ordered for parent in graph[name]):
                ordered.append(name)
    return ordered""",
        ),
        Right(
            "library",
            """from graphlib import TopologicalSorter

def order(graph, last):
    behind = [last]
    for name in behind:
        behind += [parent for parent in graph[name] if parent not in behind]
    return list(TopologicalSorter({name: graph[name] for name in behind}).static_order())""",
        ),
    ),
    hints=(
        "`order` in the section on the walk does this for `Value`s; here the parents stand in a dictionary.",
        "Visit a name: first visit all its parents, then add the name, and do nothing if it is in the list already.",
        "`ordered = []`",
    ),
)


# --- 2. All slopes ---


def slopes_of_last(steps):
    grads = [0.0] * len(steps)
    grads[-1] = 1.0
    for i in reversed(range(len(steps))):
        for j, slope in steps[i]:
            grads[j] += slope * grads[i]
    return grads


def with_slopes(rng, shape):
    return [[(j, float(rng.choice([-1, 1]) * rng.uniform(0.5, 2.0))) for j in parents] for parents in shape]


def slopes_cases(rng):
    shapes = (
        ([[], [], [0, 1], [2], [3]], "each value used once"),
        ([[], [0], [1, 1]], "a product of a value with itself"),
        ([[], [0], [1], [1, 2], [0, 3]], "a value used early and late"),
        ([[], [], [0, 0, 1], [1], [2, 3, 2]], "two values used twice"),
    )
    return [Call("slopes_of_last", with_slopes(rng, shape), label=label) for shape, label in shapes]


SLOPES = Question(
    id="slopes",
    title="All slopes in one walk",
    points=12,
    part="core",
    teaches="autograd-backward",
    cases=slopes_cases,
    expected=slopes_of_last,
    accepts=close(1e-9),
    wrong=(
        Wrong(
            "overwrites",
            """def slopes_of_last(steps):
    grads = [0.0] * len(steps)
    grads[-1] = 1.0
    for i in reversed(range(len(steps))):
        for j, slope in steps[i]:
            grads[j] = slope * grads[i]
    return grads""",
            "A value that is used twice keeps only the slope that arrives last. "
            "What it receives along several arrows adds up.",
        ),
        Wrong(
            "from-the-front",
            """def slopes_of_last(steps):
    grads = [0.0] * len(steps)
    grads[-1] = 1.0
    for i in range(len(steps)):
        for j, slope in steps[i]:
            grads[j] += slope * grads[i]
    return grads""",
            "You walk from the front. There every value still has the slope 0 when it hands it on; "
            "only the last one knows its slope at the beginning, so walk from the back.",
        ),
        Wrong(
            "turns-the-list-around",
            """def slopes_of_last(steps):
    grads = [0.0] * len(steps)
    grads[-1] = 1.0
    for i, parents in enumerate(reversed(steps)):
        for j, slope in parents:
            grads[j] += slope * grads[i]
    return grads""",
            "You turn the list around and count it anew, so `i` is no longer the place of the value in `steps`. "
            "Turn the places around: `reversed(range(len(steps)))`.",
        ),
        Wrong(
            "nothing-to-hand-on",
            """def slopes_of_last(steps):
    grads = [0.0] * len(steps)
    for i in reversed(range(len(steps))):
        for j, slope in steps[i]:
            grads[j] += slope * grads[i]
    return grads""",
            "All your slopes are 0, because nobody starts: the slope of the last value along itself is 1.",
        ),
        Wrong(
            "does-not-multiply",
            """def slopes_of_last(steps):
    grads = [0.0] * len(steps)
    grads[-1] = 1.0
    for i in reversed(range(len(steps))):
        for j, slope in steps[i]:
            grads[j] += slope
    return grads""",
            "You add up the slopes of single steps. Along a chain slopes multiply: "
            "what arrives is the slope at the arrow times the slope of the value at its end.",
        ),
        Wrong(
            "adds-the-two",
            """def slopes_of_last(steps):
    grads = [0.0] * len(steps)
    grads[-1] = 1.0
    for i in reversed(range(len(steps))):
        for j, slope in steps[i]:
            grads[j] += slope + grads[i]
    return grads""",
            "You add the slope at the arrow to the slope of the value at its end. By the chain rule they multiply.",
        ),
    ),
    right=(
        Right(
            "asks-each-value",
            """import numpy as np

def slopes_of_last(steps):
    grads = np.zeros(len(steps))
    grads[-1] = 1.0
    for j in range(len(steps) - 2, -1, -1):
        grads[j] = sum(slope * grads[i] for i in range(j + 1, len(steps)) for k, slope in steps[i] if k == j)
    return grads""",
        ),
        Right(
            "forward-mode",
            """def slopes_of_last(steps):
    answers = []
    for start in range(len(steps)):
        moved = []
        for i, parents in enumerate(steps):
            moved.append(1.0 if i == start else sum(slope * moved[j] for j, slope in parents))
        answers.append(moved[-1])
    return answers""",
        ),
    ),
    hints=(
        "The function `backward` in the section on the walk; the list `steps` is in topological order already.",
        "Begin with slopes of 0 and a 1 for the last value, go through the list from the back, hand on at each arrow.",
        "`grads = [0.0] * len(steps)`",
    ),
)


# --- 3. A new operation ---

USE_DIVIDE = """
p, q = Value(first), Value(second)
r = divide(p, q)
loss = r * r + r * factor + p
loss.backward()
answer = [float(r.data), float(p.grad), float(q.grad)]
"""


def divided(first, second, factor):
    r = first / second
    upstream = 2 * r + factor
    return [r, upstream / second + 1, -upstream * first / second**2]


def divide_cases(rng):
    def case(sign, label):
        first, second, factor = rng.uniform(1.2, 3), sign * rng.uniform(1.3, 2.5), rng.uniform(0.5, 1.5)
        inputs = {"first": float(first), "second": float(second), "factor": float(factor)}
        return Probe(USE_DIVIDE, inputs, label=label)

    return [case(1, "a positive divisor"), case(-1, "a negative divisor")]


DIVIDE = Question(
    id="divide",
    title="A new operation",
    points=10,
    part="core",
    teaches="autograd-graph",
    cases=divide_cases,
    expected=divided,
    accepts=close(1e-9),
    wrong=(
        Wrong(
            "sign",
            """def divide(p, q):
    return Value(p.data / q.data, [(p, 1 / q.data), (q, p.data / q.data**2)])""",
            "The slope along the divisor has the wrong sign: a larger positive divisor makes the quotient smaller.",
        ),
        Wrong(
            "not-squared",
            """def divide(p, q):
    return Value(p.data / q.data, [(p, 1 / q.data), (q, -p.data / q.data)])""",
            "The slope along the divisor lacks a square: the slope of 1/q is -1/q². "
            "Measure it with a central difference.",
        ),
        Wrong(
            "minus-p",
            """def divide(p, q):
    return Value(p.data / q.data, [(p, 1 / q.data), (q, -p.data)])""",
            "The slope along the divisor has the right sign and lacks 1/q²: the slope of 1/q is -1/q², so that of p/q "
            "is -p/q².",
        ),
        Wrong(
            "twice-for-squared",
            """def divide(p, q):
    return Value(p.data / q.data, [(p, 1 / q.data), (q, -p.data / (2 * q.data))])""",
            "You divide by 2q where q² belongs. At q = 2 the two are equal; q² is q times q.",
        ),
        Wrong(
            "like-a-product",
            """def divide(p, q):
    return Value(p.data / q.data, [(p, q.data), (q, p.data)])""",
            "These are the slopes of the product. For the quotient, raising p by 1 raises the result by 1/q.",
        ),
        Wrong(
            "forgets-its-parents",
            "def divide(p, q):\n    return Value(p.data / q.data)",
            "The number is right and the parents are missing, so no slope finds its way back to p and q.",
        ),
        Wrong(
            "forgets-the-divisor",
            "def divide(p, q):\n    return Value(p.data / q.data, [(p, 1 / q.data)])",
            "The quotient remembers only one of its parents. The divisor has a slope, too.",
        ),
    ),
    right=(
        Right(
            "product-with-the-reciprocal",
            """def divide(p, q):
    reciprocal = Value(1 / q.data, [(q, -1 / q.data**2)])
    return p * reciprocal""",
        ),
        Right(
            "slope-from-the-result",
            """def divide(p, q):
    r = p.data / q.data
    return Value(r, ((q, -r / q.data), (p, 1 / q.data)))""",
        ),
    ),
    hints=(
        "`__mul__` of the class `Value` in the first section: a number, and a pair (parent, slope) for each parent.",
        "By how much does p / q move when p moves by 1? Along q: p times 1/q, and the slope of 1/q is -1/q².",
        "`slope_p = 1 / q.data`",
    ),
)


# --- 4. A network ---


def mlp(X, W, b, v, c):
    return np.maximum(0, X @ W.T + b) @ v + c


def weights_of(rng, D, F):
    return rng.normal(size=(F, D)), rng.normal(size=F), rng.normal(size=F), float(rng.uniform(0.5, 1.5))


def mlp_cases(rng):
    sizes = ((5, 3, 4, "B = 5, D = 3, F = 4"), (6, 3, 3, "as many neurons as inputs"), (1, 2, 6, "a single example"))
    cases = [Call("mlp", rng.normal(size=(B, D)), *weights_of(rng, D, F), label=label) for B, D, F, label in sizes]
    return [*cases, Call("mlp", np.zeros((2, 3)), *weights_of(rng, 3, 8), label="inputs that are all 0")]


MLP = Question(
    id="mlp",
    title="A network, forward",
    points=10,
    part="core",
    teaches="autograd-mlp",
    cases=mlp_cases,
    expected=mlp,
    wrong=(
        Wrong(
            "no-bend",
            "def mlp(X, W, b, v, c):\n    return (X @ W.T + b) @ v + c",
            "There is no bend between your two layers, so together they can do no more than one. "
            "Put the ReLU between them.",
        ),
        Wrong(
            "bend-at-the-end",
            "def mlp(X, W, b, v, c):\n    return np.maximum(0, (X @ W.T + b) @ v + c)",
            "You bend the last answer instead of the hidden layer. The bend belongs between the layers; "
            "the answer may be negative.",
        ),
        Wrong(
            "two-bends",
            "def mlp(X, W, b, v, c):\n    return np.maximum(0, np.maximum(0, X @ W.T + b) @ v + c)",
            "You bend twice: the hidden layer, which is right, and then the answer, which can no longer be negative.",
        ),
        Wrong(
            "no-hidden-bias",
            "def mlp(X, W, b, v, c):\n    return np.maximum(0, X @ W.T) @ v + c",
            "The biases of the hidden layer are missing: with inputs that are all 0, every hidden neuron is silent.",
        ),
        Wrong(
            "neurons-in-columns",
            "def mlp(X, W, b, v, c):\n    return np.maximum(0, X @ W + b) @ v + c",
            "You read the weights of a neuron from a column of W; they stand in a row. Use W.T.",
        ),
    ),
    right=(
        Right(
            "loop",
            """def mlp(X, W, b, v, c):
    answers = []
    for row in X:
        total = c
        for f in range(len(b)):
            z = sum(W[f][j] * row[j] for j in range(len(row))) + b[f]
            total += v[f] * max(0.0, z)
        answers.append(total)
    return answers""",
        ),
        Right(
            "einsum",
            """def mlp(X, W, b, v, c):
    z = np.einsum("bd,fd->bf", X, W) + b
    return np.einsum("bf,f->b", np.where(z > 0, z, 0), v) + c""",
        ),
        Right(
            "torch",
            """import torch

def mlp(X, W, b, v, c):
    X, W, b, v = (torch.as_tensor(array, dtype=torch.double) for array in (X, W, b, v))
    return torch.relu(torch.nn.functional.linear(X, W, b)) @ v + c""",
        ),
    ),
    hints=(
        "The three formulas for two switches, and `dead` in lab 01: a table of pre-activations is `X @ W.T + b`.",
        "First the table (B, F) of the hidden neurons, then the bend, `np.maximum`, then each row times v, added up.",
        "`z = X @ W.T + b`",
    ),
)


# --- 5. The model to keep ---


def stop_at(losses, patience):
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        elif i - best >= patience:
            break
    return best


def curve(rng, points):
    """A curve through these heights, moved a little and scaled, with its ups and downs kept."""
    noise = rng.uniform(-0.02, 0.02, size=len(points))
    return [float(x) for x in (np.array(points) + noise) * rng.uniform(0.8, 1.5)]


def stop_cases(rng):
    return [
        Call("stop_at", curve(rng, [5, 4, 3, 3.4, 3.3, 3.6, 3.8, 2.0, 1.0]), 3, label="a curve that falls again later"),
        Call("stop_at", curve(rng, [5, 4, 4.3, 3, 3.5, 2.5, 2.9, 3.1, 3.4]), 2, label="single bumps on the way down"),
        Call("stop_at", curve(rng, [5, 3, 3.9, 3.6, 3.3, 3.15, 2.0]), 3, label="a return that never beats the best"),
        Call("stop_at", curve(rng, [5, 4, 3, 3.2, 3.4, 3.6, 2, 1]), 3, label="three rises in a row"),
        Call("stop_at", curve(rng, [5, 3, 4, 4.2, 1]), 2, label="a new best right after the patience has run out"),
        Call("stop_at", curve(rng, [5, 4, 3, 3.3, 2.0]), 1, label="a patience of 1"),
        Call("stop_at", curve(rng, [5, 4, 3, 2]), 3, label="a curve that falls to the end"),
    ]


STOP = Question(
    id="stop",
    title="The model to keep",
    points=10,
    part="core",
    teaches="autograd-split",
    cases=stop_cases,
    expected=stop_at,
    wrong=(
        Wrong(
            "looks-into-the-future",
            "def stop_at(losses, patience):\n    return min(range(len(losses)), key=lambda i: losses[i])",
            "You take the lowest loss of the whole list. Training ends when the patience is used up, "
            "so what would have come later is not known.",
        ),
        Wrong(
            "where-it-stopped",
            """def stop_at(losses, patience):
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        elif i - best >= patience:
            return i
    return len(losses) - 1""",
            "You return the place where training stops. By then the model has been getting worse for a while: "
            "return the place of the lowest loss.",
        ),
        Wrong(
            "compares-with-the-last-one",
            """def stop_at(losses, patience):
    best = bad = 0
    for i in range(1, len(losses)):
        bad = bad + 1 if losses[i] >= losses[i - 1] else 0
        if losses[i] < losses[best]:
            best = i
        if bad >= patience:
            break
    return best""",
            "Your patience starts anew whenever the loss is lower than the time before. "
            "It is to start anew only when the loss is lower than the best so far.",
        ),
        Wrong(
            "never-starts-anew",
            """def stop_at(losses, patience):
    best = bad = 0
    for i in range(1, len(losses)):
        if losses[i] < losses[best]:
            best = i
        else:
            bad += 1
        if bad == patience:
            break
    return best""",
            "You count all measurements without a new best, from the first one on. "
            "The patience is for a row of them: every new best starts it anew.",
        ),
        Wrong(
            "no-patience",
            """def stop_at(losses, patience):
    for i in range(1, len(losses)):
        if losses[i] > losses[i - 1]:
            return i - 1
    return len(losses) - 1""",
            "You stop at the first rise. Curves have bumps; that is what the patience is for.",
        ),
        Wrong(
            "one-too-patient",
            """def stop_at(losses, patience):
    best = 0
    for i, loss in enumerate(losses):
        if i - best > patience + 1:
            break
        if loss < losses[best]:
            best = i
    return best""",
            "You wait too long. With a patience of 3, training ends after the third measurement in a row "
            "that does not beat the best one.",
        ),
    ),
    right=(
        Right(
            "counter",
            """def stop_at(losses, patience):
    best, where, without_success = losses[0], 0, 0
    for i in range(1, len(losses)):
        if losses[i] < best:
            best, where, without_success = losses[i], i, 0
        else:
            without_success += 1
        if without_success == patience:
            return where
    return where""",
        ),
        Right(
            "slices",
            """def stop_at(losses, patience):
    for i in range(len(losses)):
        ahead = losses[i + 1:i + 1 + patience]
        if losses[i] == min(losses[:i + 1]) and all(loss >= losses[i] for loss in ahead):
            return i""",
        ),
    ),
    hints=(
        "Figure 3 of the chapter and the words \"early stopping\" below it.",
        "Walk through the list and remember the place of the best so far; how far behind may that place lie?",
        "`best = 0`",
    ),
)


# --- 6. How many numbers? ---

PARAMETERS = Question(
    id="parameters",
    title="How many numbers?",
    points=6,
    part="core",
    teaches="autograd-split",
    cases=lambda rng: [Read("answer_parameters")],
    expected=256 * 32 + (12 * 32) * 512 + 512 + 512 * 256 + 256,
    wrong=(
        Wrong(
            "no-embedding",
            "answer_parameters = (12 * 32) * 512 + 512 + 512 * 256 + 256",
            "The embedding is missing: its table, with a row for every byte, is learned as well.",
        ),
        Wrong(
            "no-biases",
            "answer_parameters = 256 * 32 + (12 * 32) * 512 + 512 * 256",
            "The biases are missing: each neuron of both layers has one.",
        ),
        Wrong(
            "a-table-for-each-place",
            "answer_parameters = 12 * 256 * 32 + (12 * 32) * 512 + 512 + 512 * 256 + 256",
            "You count a table for each of the 12 places. There is one, in which all places look up their byte.",
        ),
        Wrong(
            "one-byte",
            "answer_parameters = 256 * 32 + 32 * 512 + 512 + 512 * 256 + 256",
            "Your hidden layer reads a single byte. `Flatten` lays the 32 numbers of all 12 bytes side by side.",
        ),
    ),
    hints=(
        'The table of the five parts in the section "Does it learn, or does it memorize?", and the cell that counts.',
        "Go through the five parts one by one: a table, two layers with weights and biases, two parts without numbers.",
        "`embedding = 256 * 32`",
    ),
)


# --- 7. The price of a gradient ---

PRICE = Question(
    id="price",
    title="The price of a gradient",
    points=6,
    part="stretch",
    teaches="autograd-backward",
    cases=lambda rng: [Read("answer_times")],
    expected=2 * 102_912 / 3,
    accepts=close(5e-3),
    wrong=(
        Wrong(
            "one-sided",
            "answer_times = 102_912 / 3",
            "A central difference needs two losses for each weight, one on either side.",
        ),
        Wrong(
            "forgets-the-way-there",
            "answer_times = 2 * 102_912 / 2",
            "You count the walk back alone. The loss has to be computed first, so it is three losses' worth.",
        ),
        Wrong(
            "upside-down",
            "answer_times = 3 / (2 * 102_912)",
            "This is the share of the work that autograd needs. Asked for is how many times as much measuring costs.",
        ),
    ),
    hints=(
        "The last lines before the exercise in the section on the walk, and lab 01's question on the price of a check.",
        "Count both ways in the same unit, the price of computing one loss, and divide.",
        "`by_measuring = 2 * 102_912`",
    ),
)


# --- 8. Backwards through a network ---


def mlp_gradient(X, y, W, b, v, c):
    z = X @ W.T + b
    hidden = np.maximum(0, z)
    d_answer = 2 * (hidden @ v + c - y) / len(y)
    d_z = np.outer(d_answer, v) * (z > 0)
    return d_z.T @ X, d_z.sum(axis=0), hidden.T @ d_answer, d_answer.sum()


def gradient_cases(rng):
    sizes = ((6, 3, 5, "B = 6, D = 3, F = 5"), (1, 4, 3, "a single example"), (8, 2, 2, "as many neurons as inputs"))
    return [
        Call("mlp_gradient", rng.normal(size=(B, D)), rng.normal(size=B), *weights_of(rng, D, F), label=label)
        for B, D, F, label in sizes
    ]


def gradient_source(hidden="np.maximum(0, z)", d_answer="2 * (hidden @ v + c - y) / len(y)", d_z="", d_v="", d_b=""):
    """An answer to question 8 with some lines exchanged."""
    return f"""def mlp_gradient(X, y, W, b, v, c):
    z = X @ W.T + b
    hidden = {hidden}
    d_answer = {d_answer}
    d_z = {d_z or "np.outer(d_answer, v) * (z > 0)"}
    return d_z.T @ X, {d_b or "d_z.sum(axis=0)"}, {d_v or "hidden.T @ d_answer"}, d_answer.sum()"""


FINISHED = (
    "minigpt.autograd.Value", "torch.autograd.grad", "torch.autograd.backward", "torch.autograd.functional",
    "torch.Tensor.backward", ".backward", "torch.func.grad", "torch.func.grad_and_value", "torch.func.vjp",
    "torch.func.jvp", "torch.func.jacrev", "torch.func.jacfwd", "torch.func.linearize",
)  # fmt: skip


def torch_source(imported, answer):
    """An answer to question 8 that leaves the way back to torch."""
    return f"""import torch
{imported}

def mlp_gradient(X, y, W, b, v, c):
    X, y = torch.tensor(X), torch.tensor(y)
    weights = [torch.tensor(w, dtype=torch.float64, requires_grad=True) for w in (W, b, v, c)]

    def loss(W, b, v, c):
        return ((torch.relu(X @ W.T + b) @ v + c - y) ** 2).mean()

    {answer}"""


GRADIENT = Question(
    id="mlp-gradient",
    title="Backwards through a network",
    points=14,
    part="stretch",
    teaches="autograd-mlp",
    cases=gradient_cases,
    expected=mlp_gradient,
    wrong=(
        Wrong(
            "no-link-of-the-bend",
            gradient_source(d_z="np.outer(d_answer, v)"),
            "The slope of the ReLU is missing: where z is not positive nothing goes back to W and b.",
        ),
        Wrong(
            "no-mean",
            gradient_source(d_answer="2 * (hidden @ v + c - y)"),
            "You add up over the examples and do not divide by their number: the loss is a mean.",
        ),
        Wrong(
            "no-two",
            gradient_source(d_answer="(hidden @ v + c - y) / len(y)"),
            "Every slope is half of what it should be: the slope of a square has a factor of 2.",
        ),
        Wrong(
            "divides-twice",
            gradient_source(d_b="d_z.mean(axis=0)"),
            "For the biases you take a mean over the examples, though the slopes that arrive are divided by their "
            "number already. Add up.",
        ),
        Wrong(
            "forgets-the-last-weights",
            gradient_source(d_z="np.outer(d_answer, np.ones_like(v)) * (z > 0)"),
            "On its way back to z the slope passes the last layer and is multiplied by v; yours is not.",
        ),
        Wrong(
            "unbent-hidden",
            gradient_source(d_v="z.T @ d_answer"),
            "For the weights v you take the pre-activations. Their inputs are the hidden answers, after the bend.",
        ),
        Wrong(
            "torch-goes-back",
            torch_source("from torch.autograd import backward as go_back",
                         "go_back(loss(*weights))\n    return [w.grad for w in weights]"),
            "Torch walks back for you. Write the three steps of the way back yourself.",
        ),
        Wrong(
            "torch-takes-the-slopes",
            torch_source("from torch.func import grad", "return grad(loss, argnums=(0, 1, 2, 3))(*weights)"),
            "A function of torch takes the slopes for you. Write the three steps of the way back yourself.",
        ),
    ),
    right=(
        Right(
            "example-by-example",
            """def mlp_gradient(X, y, W, b, v, c):
    dW, db, dv, dc = np.zeros_like(W), np.zeros_like(b), np.zeros_like(v), 0.0
    for x, target in zip(X, y):
        z = W @ x + b
        hidden = np.maximum(0, z)
        error = 2 * (hidden @ v + c - target) / len(y)
        dc += error
        dv += error * hidden
        for f in range(len(b)):
            if z[f] > 0:
                db[f] += error * v[f]
                dW[f] += error * v[f] * x
    return dW, db, dv, dc""",
        ),
        Right(
            "einsum",
            """def mlp_gradient(X, y, W, b, v, c):
    z = X @ W.T + b
    on = (z > 0).astype(float)
    error = ((z * on) @ v + c - y) * 2
    n = len(y)
    return [
        np.einsum("b,f,bf,bd->fd", error, v, on, X) / n,
        np.einsum("b,f,bf->f", error, v, on) / n,
        np.einsum("b,bf->f", error, z * on) / n,
        error.mean(),
    ]""",
        ),
    ),
    forbidden=FINISHED,
    hints=(
        "Chapter 01's `gradient` for one neuron, and the three steps above.",
        "Go back layer by layer: the slope for each answer (B,), then for each z (B, F), then for what made z.",
        "Of the way back, once you have `answers` as in exercise 4: `d = 2 * (answers - y) / len(y)`",
    ),
)


# --- 9. and the growth record ---

DIAGNOSIS = Question(
    id="diagnosis",
    title="A colleague's curves",
    points=10,
    part="core",
    teaches="autograd-split",
    written=True,
    hints=(
        "Figure 3 of the chapter and the two paragraphs below it.",
        "Which of the two rows stands for text that the model will meet in its work?",
        '"The training loss falls because ..."',
    ),
    rubric="3 points: names overfitting (memorizing), because training falls while validation rises, and not because "
    "there is a gap. 2: the model to keep is that of step 600, the lowest validation loss. 2: more steps make it "
    "worse, and why the training loss cannot show it. 3: one remedy that follows from the cause (more text, a "
    "smaller model, stopping early), with what it should do to the two curves.",
)

RECORD = Question(
    id="growth-record",
    title="Growth record",
    points=10,
    part="record",
    teaches="autograd-record",
    written=True,
    rubric="2 points for each of the five lines that is about something the learner did: the failure, the measurement "
    "and the same measurement again with a number of their own, the cause with the rule or formula that predicts it, "
    "the repair with the change.",
)

QUESTIONS = [ORDER, SLOPES, DIVIDE, MLP, STOP, PARAMETERS, PRICE, GRADIENT, DIAGNOSIS, RECORD]
