"""Checks of lab 06, transformer.

Axes: T tokens, D width, H heads, G heads of keys and values, K width of one head, F feed-forward width, V vocabulary.
"""

import numpy as np

from grading.question import Call, Probe, Question, Read, Right, Wrong, close

# --- 1. Two norms ---

USE_NORMS = "answer = [layer_norm(x, gain, bias, eps), rms_norm(x, gain, eps)]"


def norms(x, gain, bias, eps):
    centered = x - x.mean(axis=-1, keepdims=True)
    layer = gain * centered / np.sqrt(np.mean(centered**2, axis=-1, keepdims=True) + eps) + bias
    return [layer, gain * x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps)]


def norms_cases(rng):
    sizes = ((4, 6, 1e-5, "T = 4, D = 6"), (5, 5, 0.5, "a large eps"), (1, 7, 1e-5, "a single token"))
    return [
        Probe(USE_NORMS, {"x": rng.normal(1, 2, size=(T, D)), "gain": rng.uniform(0.5, 2, D),
                          "bias": rng.normal(size=D), "eps": eps}, label=label)
        for T, D, eps, label in sizes
    ]


def norms_source(axis="-1", layer="gain * c / np.sqrt(np.mean(c**2, axis={}, keepdims=True) + eps) + bias",
                 rms="gain * x / np.sqrt(np.mean(x**2, axis={}, keepdims=True) + eps)"):
    """An answer to question 1 with some parts exchanged."""
    return f"""def layer_norm(x, gain, bias, eps):
    c = x - x.mean(axis={axis}, keepdims=True)
    return {layer.format(axis)}

def rms_norm(x, gain, eps):
    c = x - x.mean(axis={axis}, keepdims=True)
    return {rms.format(axis)}"""


GIVEN = "torch.tensor(gain), torch.tensor(bias)"
TENSORS = f"torch.tensor(x), x.shape[1:], {GIVEN}"
TENSORS_OF_ONE_GROUP = f"torch.tensor(x), 1, {GIVEN}"

NORMS = Question(
    id="norms",
    title="Two norms",
    points=10,
    part="core",
    teaches="transformer-norm",
    cases=norms_cases,
    expected=norms,
    wrong=(
        Wrong(
            "along-the-tokens",
            norms_source(axis="0"),
            "You take the mean over the tokens. Each row is one token and is treated by itself: use axis=-1, "
            "else a later token changes an earlier one.",
        ),
        Wrong(
            "rms-with-a-mean",
            norms_source(rms="gain * c / np.sqrt(np.mean(c**2, axis={}, keepdims=True) + eps)"),
            "Your rms_norm subtracts the mean. That is what it leaves out: it divides by the root of the mean square.",
        ),
        Wrong(
            "no-root",
            norms_source(layer="gain * c / (np.mean(c**2, axis={}, keepdims=True) + eps) + bias",
                         rms="gain * x / (np.mean(x**2, axis={}, keepdims=True) + eps)"),
            "You divide by the mean square and not by its root: "
            "a row that is twice as large comes out half as large.",
        ),
        Wrong(
            "eps-outside",
            norms_source(layer="gain * c / (np.sqrt(np.mean(c**2, axis={}, keepdims=True)) + eps) + bias",
                         rms="gain * x / (np.sqrt(np.mean(x**2, axis={}, keepdims=True)) + eps)"),
            "You add eps outside of the root. It belongs inside, to the mean square; with a small eps nobody sees it.",
        ),
        Wrong(
            "std-plus-eps",
            norms_source(layer="gain * c / (x.std(axis={}, keepdims=True) + eps) + bias"),
            "Your layer_norm adds eps to the root, your rms_norm to the mean square. Both add it inside the root.",
        ),
        Wrong(
            "unbiased-variance",
            norms_source(layer="gain * c / np.sqrt(x.var(axis={}, keepdims=True, ddof=1) + eps) + bias"),
            "Your variance divides by D - 1. LayerNorm takes the plain mean of the squares and divides by D; "
            "in torch that is var(..., unbiased=False).",
        ),
        *(
            Wrong(
                name,
                norms_source(layer=f"{finished}.numpy()").replace("def layer_norm", "import torch\n\ndef layer_norm"),
                "Your layer_norm calls a finished one of torch. Write the mean, the root and the gain yourself.",
            )
            for name, finished in (
                ("finished-native", f"torch.native_layer_norm({TENSORS}, eps)[0]"),
                ("finished-aten", f"torch.ops.aten.layer_norm({TENSORS}, eps)"),
                ("finished-group", f"torch.group_norm({TENSORS_OF_ONE_GROUP}, eps)"),
            )
        ),
    ),
    right=(
        Right(
            "loop",
            """import math

def layer_norm(x, gain, bias, eps):
    rows = []
    for row in x:
        mean = sum(row) / len(row)
        variance = sum((value - mean) ** 2 for value in row) / len(row)
        rows.append([g * (value - mean) / math.sqrt(variance + eps) + b for value, g, b in zip(row, gain, bias)])
    return rows

def rms_norm(x, gain, eps):
    return [[g * value / math.sqrt(sum(v * v for v in row) / len(row) + eps) for value, g in zip(row, gain)]
            for row in x]""",
        ),
        Right(
            "torch",
            """import torch

def layer_norm(x, gain, bias, eps):
    x, gain, bias = (torch.as_tensor(array) for array in (x, gain, bias))
    return (x - x.mean(-1, keepdim=True)) * (x.var(-1, keepdim=True, correction=0) + eps).rsqrt() * gain + bias

def rms_norm(x, gain, eps):
    x, gain = torch.as_tensor(x), torch.as_tensor(gain)
    return x * (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt() * gain""",
        ),
    ),
    forbidden=("torch.nn.functional.layer_norm", "torch.nn.functional.rms_norm", "torch.nn.functional.group_norm",
               "torch.nn.LayerNorm", "torch.nn.RMSNorm", "torch.nn.GroupNorm", "torch.layer_norm", "torch.rms_norm",
               "torch.group_norm", "torch.native_layer_norm", "torch.native_group_norm", "torch.ops", "minigpt"),
    hints=(
        "The cell with both norms in the section on range; numpy writes `axis=-1, keepdims=True` where torch writes "
        "`-1, keepdim=True`.",
        "One mean per row, kept as a column (T, 1), so that it can be subtracted from a table (T, D).",
        "`centered = x - x.mean(axis=-1, keepdims=True)`",
    ),
)


# --- 2. Rotary positions ---


def turn(x, positions, base):
    half = x.shape[1] // 2
    angles = np.outer(positions, base ** (-np.arange(half) / half))
    first, second = x[:, :half], x[:, half:]
    return np.concatenate([first * np.cos(angles) - second * np.sin(angles),
                           first * np.sin(angles) + second * np.cos(angles)], axis=1)


def rotary_cases(rng):
    def case(T, K, start, base, label):
        return Call("turn", rng.normal(size=(T, K)), np.arange(start, start + T), base, label=label)

    return [
        case(1, 2, 3, 10_000.0, "a single pair"),
        case(5, 8, 0, 10_000.0, "T = 5, K = 8"),
        case(4, 6, 100, 500.0, "positions from 100 on and another base"),
    ]


def turn_source(speeds="base ** (-np.arange(half) / half)", first="x[:, :half]", second="x[:, half:]",
                a="first * np.cos(angles) - second * np.sin(angles)",
                b="first * np.sin(angles) + second * np.cos(angles)"):
    """An answer to question 2 with some parts exchanged."""
    return f"""def turn(x, positions, base):
    half = x.shape[1] // 2
    angles = np.outer(positions, {speeds})
    first, second = {first}, {second}
    return np.concatenate([{a}, {b}], axis=1)"""


ROTARY = Question(
    id="rotary",
    title="Turn the pairs",
    points=12,
    part="core",
    teaches="transformer-positions",
    cases=rotary_cases,
    expected=turn,
    wrong=(
        Wrong(
            "neighbors",
            """def turn(x, positions, base):
    half = x.shape[1] // 2
    angles = np.outer(positions, base ** (-np.arange(half) / half))
    turned = np.empty_like(x)
    turned[:, 0::2] = x[:, 0::2] * np.cos(angles) - x[:, 1::2] * np.sin(angles)
    turned[:, 1::2] = x[:, 0::2] * np.sin(angles) + x[:, 1::2] * np.cos(angles)
    return turned""",
            "You pair neighbors, (0, 1), (2, 3). Here number i belongs to number i + K/2. Both conventions are in use, "
            "and neither can read the other's weights.",
        ),
        Wrong(
            "other-direction",
            turn_source(a="first * np.cos(angles) + second * np.sin(angles)",
                        b="second * np.cos(angles) - first * np.sin(angles)"),
            "Your pairs turn the other way. In (a cos - b sin, a sin + b cos) the minus stands in the first number.",
        ),
        Wrong(
            "one-speed",
            turn_source(speeds="np.ones(half)"),
            "All your pairs turn at the same speed. Pair i turns by base ** (-2i/K) for each position, "
            "so that later pairs turn more slowly and see farther.",
        ),
        Wrong(
            "exponent-without-two",
            turn_source(speeds="base ** (-np.arange(half) / (2 * half))"),
            "Your exponent is -i/K; the pairs are counted from 0 to K/2 - 1, and the exponent is -2i/K.",
        ),
        Wrong(
            "upside-down",
            turn_source(speeds="base ** (np.arange(half) / half)"),
            "The sign of your exponent is missing: later pairs should turn more slowly, yours turn faster.",
        ),
    ),
    right=(
        Right(
            "loop",
            """import math

def turn(x, positions, base):
    K = len(x[0])
    rows = [[0.0] * K for _ in x]
    for row, old, position in zip(rows, x, positions):
        for i in range(K // 2):
            angle = position * base ** (-2 * i / K)
            a, b = old[i], old[i + K // 2]
            row[i] = a * math.cos(angle) - b * math.sin(angle)
            row[i + K // 2] = a * math.sin(angle) + b * math.cos(angle)
    return rows""",
        ),
        Right(
            "complex-numbers",
            """def turn(x, positions, base):
    half = x.shape[1] // 2
    pairs = x[:, :half] + 1j * x[:, half:]
    pairs = pairs * np.exp(1j * np.outer(positions, float(base) ** (-2 * np.arange(half) / x.shape[1])))
    return np.hstack([pairs.real, pairs.imag])""",
        ),
    ),
    forbidden=("minigpt",),
    hints=(
        "The function `turn` in the section on positions; there the axes before the last two are batch and heads. "
        "Numpy writes `np.concatenate(..., axis=-1)` where torch writes `cat(..., dim=-1)`.",
        "A table of angles (T, K/2) by `np.outer`, the first half of the columns, the second half, and the formula "
        "for a pair.",
        "`half = x.shape[1] // 2`",
    ),
)


# --- 3. A gate ---


def swiglu(x, gate, up, down):
    z = x @ gate.T
    return (z / (1 + np.exp(-z)) * (x @ up.T)) @ down.T


def swiglu_cases(rng):
    sizes = ((4, 3, 5, "T = 4, D = 3, F = 5"), (3, 4, 4, "as many neurons as inputs"))
    return [
        Call("swiglu", rng.normal(size=(T, D)), rng.normal(size=(F, D)), rng.normal(size=(F, D)),
             rng.normal(size=(D, F)), label=label)
        for T, D, F, label in sizes
    ]


def swiglu_source(hidden):
    return f"""def swiglu(x, gate, up, down):
    z, u = x @ gate.T, x @ up.T
    hidden = {hidden}
    return hidden @ down.T"""


SWIGLU = Question(
    id="swiglu",
    title="A gate",
    points=6,
    part="core",
    teaches="transformer-mlp",
    cases=swiglu_cases,
    expected=swiglu,
    wrong=(
        Wrong(
            "bent-up",
            swiglu_source("z * u / (1 + np.exp(-u))"),
            "You bend the numbers of `up`. The bend belongs on the gate; `up` goes in as it is.",
        ),
        Wrong(
            "sigmoid",
            swiglu_source("u / (1 + np.exp(-z))"),
            "You bend with the sigmoid. SiLU(z) is z times the sigmoid of z.",
        ),
        Wrong(
            "added",
            swiglu_source("z / (1 + np.exp(-z)) + u"),
            "You add the two lists. A gate multiplies: where it is near 0 nothing comes through.",
        ),
        Wrong(
            "relu",
            swiglu_source("np.maximum(z, 0) * u"),
            "Your gate is bent by ReLU. SiLU is smooth, and a little below 0 for negative numbers.",
        ),
        Wrong(
            "no-gate",
            swiglu_source("u / (1 + np.exp(-u))"),
            "You leave out the gate and bend `up`: that is an MLP of two matrices with SiLU, and `gate` is never used.",
        ),
    ),
    right=(
        Right(
            "token-by-token",
            """import math

def swiglu(x, gate, up, down):
    rows = []
    for token in x:
        hidden = []
        for g, u in zip(gate, up):
            z = float(np.dot(g, token))
            hidden.append(z / (1 + math.exp(-z)) * float(np.dot(u, token)))
        rows.append(down @ np.array(hidden))
    return np.array(rows)""",
        ),
        Right(
            "torch",
            """import torch

def swiglu(x, gate, up, down):
    x, gate, up, down = (torch.as_tensor(array) for array in (x, gate, up, down))
    z = x @ gate.T
    return (z * torch.sigmoid(z) * (x @ up.T)) @ down.T""",
        ),
    ),
    hints=(
        "The formula of the gate in the section on where the numbers sit, and `mlp` of lab 02 for tables of weights.",
        "Two tables (T, F): bend one of them, multiply, and bring the result back to width D.",
        "`z = x @ gate.T`",
    ),
)


# --- 4. Grouped heads ---


def grouped_attention(queries, keys, values):
    H, T, K = queries.shape
    keys, values = (np.repeat(array, H // len(keys), axis=0) for array in (keys, values))
    scores = queries @ keys.transpose(0, 2, 1) / np.sqrt(K)
    scores[:, np.triu(np.ones((T, T), dtype=bool), k=1)] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True) @ values


def grouped_cases(rng):
    sizes = ((3, 3, "every head with keys of its own"), (6, 2, "H = 6, G = 2"), (4, 1, "one head of keys for all"))
    return [
        Call("grouped_attention", rng.normal(size=(H, 5, 4)), rng.normal(size=(G, 5, 4)), rng.normal(size=(G, 5, 4)),
             label=label)
        for H, G, label in sizes
    ]


def grouped_source(spread="np.repeat(a, H // len(a), axis=0)", scale="np.sqrt(K)",
                   mask="scores[:, np.triu(np.ones((T, T), dtype=bool), k=1)] = -np.inf", axis="-1"):
    """An answer to question 4 with some parts exchanged."""
    return f"""def grouped_attention(queries, keys, values):
    H, T, K = queries.shape
    keys, values = ({spread} for a in (keys, values))
    scores = queries @ keys.transpose(0, 2, 1) / {scale}
    {mask}
    weights = np.exp(scores)
    weights = weights / weights.sum(axis={axis}, keepdims=True)
    return weights @ values"""


GROUPED = Question(
    id="grouped",
    title="Heads that share",
    points=12,
    part="core",
    teaches="transformer-grouped",
    cases=grouped_cases,
    expected=grouped_attention,
    wrong=(
        Wrong(
            "takes-turns",
            grouped_source(spread="np.tile(a, (H // len(a), 1, 1))"),
            "Your heads take turns: 0, 1, 0, 1. Neighbors share: the first H/G heads read the first keys, so each is "
            "repeated (np.repeat), and the whole list is not (np.tile).",
        ),
        Wrong(
            "no-mask",
            grouped_source(mask="pass"),
            "Your tokens see later ones. Scores above the diagonal become minus infinity before the softmax.",
        ),
        Wrong(
            "not-scaled",
            grouped_source(scale="1"),
            "The scores are not divided by the square root of K, the width of a head.",
        ),
        Wrong(
            "mean-of-the-groups",
            grouped_source(spread="np.repeat(a.mean(axis=0, keepdims=True), H, axis=0)"),
            "All your heads read the mean over the groups. Each head reads keys and values of its own group.",
        ),
        Wrong(
            "softmax-over-the-queries",
            grouped_source(axis="-2"),
            "Your softmax adds up to 1 over the tokens that ask. Each asking token shares out 1 over those it reads: "
            "axis=-1.",
        ),
        Wrong(
            "finished",
            """import torch

def grouped_attention(queries, keys, values):
    given = (torch.tensor(array)[None] for array in (queries, keys, values))
    return torch.ops.aten.scaled_dot_product_attention(*given, is_causal=True, enable_gqa=True)[0]""",
            "You call the finished attention of torch. Write scores, mask, softmax and mixture yourself.",
        ),
    ),
    right=(
        Right(
            "head-by-head",
            """def grouped_attention(queries, keys, values):
    H, T, K = queries.shape
    out = np.zeros_like(queries)
    for h in range(H):
        k, v = keys[h * len(keys) // H], values[h * len(values) // H]
        for t in range(T):
            scores = k[:t + 1] @ queries[h, t] / K ** 0.5
            weights = np.exp(scores - scores.max())
            out[h, t] = weights @ v[:t + 1] / weights.sum()
    return out""",
        ),
        Right(
            "einsum",
            """def grouped_attention(queries, keys, values):
    H, T, K = queries.shape
    grouped = queries.reshape(len(keys), -1, T, K)
    scores = np.einsum("gstk,guk->gstu", grouped, keys) / np.sqrt(K)
    scores = np.where(np.tril(np.ones((T, T))) > 0, scores, -1e9)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("gstu,guk->gstk", weights, values).reshape(H, T, K)""",
        ),
    ),
    forbidden=("torch.nn.functional.scaled_dot_product_attention", "torch.nn.MultiheadAttention",
               "torch.nn.functional.multi_head_attention_forward", "torch.nn.attention", "torch.ops", "minigpt"),
    hints=(
        "The section on grouped heads, and the attention that you wrote in lab 05. "
        "Numpy writes `np.repeat(..., axis=0)` where torch writes `repeat_interleave(..., dim=0)`.",
        "Make H keys out of G, each repeated for its neighbors; from there on every head is as in chapter 05.",
        "`H, T, K = queries.shape`",
    ),
)


# --- 5. A block of given parts ---

USE_BLOCK = """
def attend(x):
    return np.tril(np.ones((len(x), len(x)))) @ x * factor

def feed(x):
    return np.tanh(x @ matrix)

def norm_1(x):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True))

def norm_2(x):
    return 2 * norm_1(x)

given = x.copy()
answer = [block(given, attend, feed, norm_1, norm_2, parallel), given]
"""


def block(x, factor, matrix, parallel):
    def attend(x):
        return np.tril(np.ones((len(x), len(x)))) @ x * factor

    def norm(x):
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True))

    attended = attend(norm(x))
    after = x + attended
    return [after + np.tanh(2 * norm(x if parallel else after) @ matrix), x]


def block_cases(rng):
    return [
        Probe(USE_BLOCK, {"x": rng.normal(size=(4, 3)), "factor": float(rng.uniform(0.5, 1)),
                          "matrix": rng.normal(size=(3, 3)), "parallel": parallel}, label=label)
        for parallel, label in ((False, "parts in a row"), (True, "parts side by side"))
    ]


BLOCK = Question(
    id="block",
    title="In a row or side by side",
    points=8,
    part="core",
    teaches="transformer-block",
    cases=block_cases,
    expected=block,
    wrong=(
        Wrong(
            "always-in-a-row",
            """def block(x, attend, feed, norm_1, norm_2, parallel):
    x = x + attend(norm_1(x))
    return x + feed(norm_2(x))""",
            "Your parallel block works in a row as well: its feed-forward part should read x, not x with the "
            "attention added.",
        ),
        Wrong(
            "no-residual",
            """def block(x, attend, feed, norm_1, norm_2, parallel):
    attended = attend(norm_1(x))
    if parallel:
        return attended + feed(norm_2(x))
    return feed(norm_2(attended))""",
            "x itself is not in your sum. Each part adds to what is there: that is the residual.",
        ),
        Wrong(
            "norm-behind",
            """def block(x, attend, feed, norm_1, norm_2, parallel):
    attended = norm_1(attend(x))
    if parallel:
        return x + attended + norm_2(feed(x))
    x = x + attended
    return x + norm_2(feed(x))""",
            "Your norms stand behind the parts. In both families each norm stands before its part.",
        ),
        Wrong(
            "norms-exchanged",
            """def block(x, attend, feed, norm_1, norm_2, parallel):
    attended = attend(norm_2(x))
    if parallel:
        return x + attended + feed(norm_1(x))
    x = x + attended
    return x + feed(norm_1(x))""",
            "Your norms are exchanged: norm_1 belongs to attention, norm_2 to the feed-forward part.",
        ),
        Wrong(
            "changes-the-input",
            """def block(x, attend, feed, norm_1, norm_2, parallel):
    attended = attend(norm_1(x))
    fed = feed(norm_2(x if parallel else x + attended))
    x += attended
    x += fed
    return x""",
            "Your block changes the table that it was given. `x += ...` writes into the caller's array; "
            "write `x = x + ...`.",
        ),
        Wrong(
            "no-residual-side-by-side",
            """def block(x, attend, feed, norm_1, norm_2, parallel):
    attended = attend(norm_1(x))
    if parallel:
        return attended + feed(norm_2(x))
    x = x + attended
    return x + feed(norm_2(x))""",
            "Side by side your block forgets `x` itself: three things are added, it and what both parts answer.",
        ),
    ),
    right=(
        Right(
            "one-expression",
            """def block(x, attend, feed, norm_1, norm_2, parallel):
    middle = x + attend(norm_1(x))
    return middle + feed(norm_2(x if parallel else middle))""",
        ),
        Right(
            "collects-a-sum",
            """def block(x, attend, feed, norm_1, norm_2, parallel):
    stream = np.array(x, copy=True)
    parts = [(attend, norm_1), (feed, norm_2)]
    for part, norm in parts:
        stream = np.add(stream, part(norm(x if parallel else stream)))
    return stream.tolist()""",
        ),
    ),
    hints=(
        "The two formulas and the figure of the section on what a block does.",
        "Attention is the same in both. Then ask what the second norm reads.",
        "`attended = attend(norm_1(x))`",
    ),
)


# --- 6. The parameter formula ---


def count(family, n_layers, D, H, G, F, V):
    K = D // H
    attention = 2 * D * D + 2 * G * K * D
    if family == "llama":
        feed_forward, norm = 3 * F * D, D
    else:
        attention += 2 * D + 2 * G * K
        feed_forward, norm = 2 * F * D + F + D, 2 * D
    return 2 * V * D + n_layers * (attention + feed_forward + 2 * norm) + norm


def count_cases(rng):
    def case(family, groups, label):
        K, n_layers = 2 * int(rng.integers(3, 9)), int(rng.integers(2, 9))
        F, V = int(rng.integers(100, 400)), int(rng.integers(300, 900))
        return Call("count", family, n_layers, 4 * K, 4, groups, F, V, label=label)

    return [
        case("llama", 4, "a LLaMA with full attention"),
        case("llama", 2, "a LLaMA with grouped heads"),
        case("neox", 4, "a NeoX with full attention"),
        case("neox", 1, "a NeoX with one head of keys"),
    ]


def count_source(attention="2 * D * D + 2 * G * K * D", biases="2 * D + 2 * G * K", gates="3", fed="F + D",
                 norm="2 * D", ends="2 * V * D", last="norm"):
    """An answer to question 6 with some parts exchanged."""
    return f"""def count(family, n_layers, D, H, G, F, V):
    K = D // H
    attention = {attention}
    if family == "llama":
        feed_forward, norm = {gates} * F * D, D
    else:
        attention += {biases}
        feed_forward, norm = 2 * F * D + {fed}, {norm}
    return {ends} + n_layers * (attention + feed_forward + 2 * norm) + {last}"""


COUNT = Question(
    id="count",
    title="Count every number",
    points=10,
    part="core",
    teaches="transformer-count",
    cases=count_cases,
    expected=count,
    wrong=(
        Wrong(
            "no-last-norm",
            count_source(last="0"),
            "You are short by one norm: after the last block there is another.",
        ),
        Wrong(
            "one-table",
            count_source(ends="V * D"),
            "You count one table of V times D. The embedding and the output layer are two, "
            "and here they share nothing.",
        ),
        Wrong(
            "full-keys",
            count_source(attention="4 * D * D", biases="4 * D"),
            "Keys and values have G heads of width K, so their matrices have G·K rows and not D.",
        ),
        Wrong(
            "no-biases",
            count_source(biases="0", fed="0", norm="D"),
            "Your NeoX has no biases. Each matrix of its blocks has one for every row, and so has every norm.",
        ),
        Wrong(
            "two-matrices",
            count_source(gates="2"),
            "Your LLaMA has two matrices in the feed-forward part. SwiGLU has three: gate, up and down.",
        ),
        Wrong(
            "matrices-alone",
            """def count(family, n_layers, D, H, G, F, V):
    attention = 2 * D * D + 2 * D * G * D // H
    return 2 * V * D + n_layers * (attention + (3 if family == "llama" else 2) * F * D)""",
            "You count matrices alone. Each norm has a gain, in NeoX a bias too, and so has each matrix of its blocks.",
        ),
    ),
    right=(
        Right(
            "part-by-part",
            """def count(family, n_layers, D, H, G, F, V):
    neox = family == "neox"
    rows = [(D, D), (G * D // H, D), (G * D // H, D), (D, D), (F, D), (D, F)] + ([] if neox else [(F, D)])
    total = 2 * V * D
    for _ in range(n_layers):
        for r, c in rows:
            total += r * c + (r if neox else 0)
        total += 4 * D if neox else 2 * D
    return total + (2 * D if neox else D)""",
        ),
        Right(
            "torch-counts",
            """import torch

def count(family, n_layers, D, H, G, F, V):
    neox = family == "neox"
    shapes = [(D, D), (D, D), (D, G * (D // H)), (D, G * (D // H)), (D, F), (F, D)]
    layers = [torch.nn.Linear(*shape, bias=neox) for shape in shapes + ([] if neox else [(D, F)])]
    norm = torch.nn.LayerNorm(D) if neox else torch.nn.RMSNorm(D)
    size = lambda module: sum(weight.numel() for weight in module.parameters())
    return 2 * V * D + n_layers * (sum(map(size, layers)) + 2 * size(norm)) + size(norm)""",
        ),
    ),
    forbidden=("ModelConfig", "minigpt"),
    hints=(
        "The table of the section on counting: one line for each part of the block.",
        "A matrix with R rows and C columns has R · C numbers, and its bias R more. Add up a block, then the ends.",
        "`K = D // H`",
    ),
)


# --- 7. A width that cannot be ---

WIDTH = Question(
    id="width",
    title="A width that cannot be",
    points=4,
    part="core",
    teaches="transformer-count",
    cases=lambda rng: [Read("answer_billions")],
    expected=96 * 12 * 2048**2 / 1e9,
    accepts=close(1e-2),
    wrong=(
        Wrong(
            "no-attention",
            "answer_billions = 96 * 8 * 2048**2 / 1e9",
            "You count the feed-forward part alone. Attention has four matrices of D times D.",
        ),
        Wrong(
            "no-feed-forward",
            "answer_billions = 96 * 4 * 2048**2 / 1e9",
            "You count attention alone. The feed-forward part has two matrices of D times 4D.",
        ),
        Wrong(
            "true-width",
            "answer_billions = 96 * 12 * 12288**2 / 1e9",
            "This is GPT-3 with its true width. The question asks what would follow from a width of 2,048.",
        ),
        Wrong(
            "one-block",
            "answer_billions = 12 * 2048**2 / 1e9",
            "This is one block. There are 96 of them.",
        ),
        Wrong(
            "numbers",
            "answer_billions = 96 * 12 * 2048**2",
            "These are numbers. The question asks for billions of them: divide by 1e9.",
        ),
    ),
    hints=(
        "The rule of thumb below the table of the section on counting.",
        "Four matrices of D · D in attention, two of D · 4D behind it, 96 times.",
        "`attention = 4 * 2048**2`",
    ),
)


# --- 8. The cache ---

CACHE = Question(
    id="cache",
    title="What a token leaves behind",
    points=6,
    part="stretch",
    teaches="transformer-grouped",
    cases=lambda rng: [Read("answer_bytes")],
    expected=80 * 2 * 8 * 128 * 2,
    wrong=(
        Wrong(
            "ungrouped",
            "answer_bytes = 80 * 2 * 64 * 128 * 2",
            "You keep 8,192 numbers for keys and as many for values. There are 8 heads of keys, each as wide as a head "
            "of queries, D / H = 128, since the two meet in a dot product.",
        ),
        Wrong(
            "half",
            "answer_bytes = 80 * 8 * 128 * 2",
            "This is half of it. Keys and values are both kept, and each number takes 2 bytes.",
        ),
        Wrong(
            "one-layer",
            "answer_bytes = 2 * 8 * 128 * 2",
            "This is what one block keeps. Each of the 80 has keys and values of its own.",
        ),
    ),
    hints=(
        "The paragraph on what a writing model keeps, in the section on grouped heads.",
        "How many numbers is one key? How many keys and values has a token in one block? Then blocks, then bytes.",
        "`width_of_head = 8192 // 64`",
    ),
)


# --- 9. Weights of another dialect ---

NAMES = {"input_layernorm": "attention_norm", "post_attention_layernorm": "feed_forward_norm",
         "attention.dense": "attention.to_output", "mlp.dense_h_to_4h": "feed_forward.up",
         "mlp.dense_4h_to_h": "feed_forward.down"}


def to_minigpt(theirs, n_heads):
    ours = {}
    for name, array in theirs.items():
        part, kind = name.rsplit(".", 1)
        if part in NAMES:
            ours[f"{NAMES[part]}.{kind}"] = array
            continue
        by_head = array.reshape(n_heads, 3, -1, *array.shape[1:])
        for which, our in enumerate(("to_queries", "to_keys", "to_values")):
            ours[f"attention.{our}.{kind}"] = by_head[:, which].reshape(-1, *array.shape[1:])
    return ours


def dialect_cases(rng):
    def case(H, K, F, label):
        D = H * K
        shapes = {"input_layernorm": (D,), "post_attention_layernorm": (D,), "attention.query_key_value": (3 * D, D),
                  "attention.dense": (D, D), "mlp.dense_h_to_4h": (F, D), "mlp.dense_4h_to_h": (D, F)}
        theirs = {}
        for name, shape in shapes.items():
            theirs[f"{name}.weight"] = rng.normal(size=shape)
            theirs[f"{name}.bias"] = rng.normal(size=shape[0])
        return Call("to_minigpt", theirs, H, label=label)

    return [case(2, 3, 8, "2 heads of width 3"), case(4, 2, 8, "4 heads of width 2, F = D"), case(3, 4, 20, "3 heads")]


def dialect_source(split="array.reshape(n_heads, 3, -1, *array.shape[1:])[:, i].reshape(-1, *array.shape[1:])",
                   three='("to_queries", "to_keys", "to_values")', **exchanged):
    """An answer to question 9 with some names or its split exchanged."""
    return f"""NAMES = {NAMES | exchanged!r}

def to_minigpt(theirs, n_heads):
    ours = {{}}
    for name, array in theirs.items():
        part, kind = name.rsplit(".", 1)
        if part in NAMES:
            ours[NAMES[part] + "." + kind] = array
            continue
        for i, our in enumerate({three}):
            ours["attention." + our + "." + kind] = {split}
    return ours"""


DIALECT = Question(
    id="dialect",
    title="Weights that speak another dialect",
    points=14,
    part="stretch",
    teaches="transformer-weights",
    cases=dialect_cases,
    expected=to_minigpt,
    accepts=close(1e-9),
    wrong=(
        Wrong(
            "thirds",
            dialect_source(split="np.split(array, 3)[i]"),
            "You cut the matrix into thirds. Its rows come head by head: K rows of queries, K of keys, K of values, "
            "and then the next head. So the axes that hide in the rows are head, which of the three, row.",
        ),
        Wrong(
            "every-third-row",
            dialect_source(split="array[i::3]"),
            "You take every third row. The rows of one head's queries stand together, K of them in a run.",
        ),
        Wrong(
            "keys-for-values",
            dialect_source(three='("to_queries", "to_values", "to_keys")'),
            "Keys and values are exchanged: the order is queries, keys, values.",
        ),
        Wrong(
            "norms-exchanged",
            dialect_source(input_layernorm="feed_forward_norm", post_attention_layernorm="attention_norm"),
            "The two norms are exchanged. `input_layernorm` stands before attention, `post_attention_layernorm` "
            "before the feed-forward part.",
        ),
    ),
    right=(
        Right(
            "row-by-row",
            """def to_minigpt(theirs, n_heads):
    ours = {}
    for kind in ("weight", "bias"):
        fused = theirs["attention.query_key_value." + kind]
        K = len(fused) // (3 * n_heads)
        for which, name in enumerate(["to_queries", "to_keys", "to_values"]):
            rows = [fused[(head * 3 + which) * K + k] for head in range(n_heads) for k in range(K)]
            ours["attention." + name + "." + kind] = np.array(rows)
        for old, new in NAMES.items():
            ours[new + "." + kind] = theirs[old + "." + kind]
    return ours

NAMES = {"input_layernorm": "attention_norm", "post_attention_layernorm": "feed_forward_norm",
         "attention.dense": "attention.to_output", "mlp.dense_h_to_4h": "feed_forward.up",
         "mlp.dense_4h_to_h": "feed_forward.down"}""",
        ),
        Right(
            "torch",
            """import torch

NAMES = {"input_layernorm": "attention_norm", "post_attention_layernorm": "feed_forward_norm",
         "attention.dense": "attention.to_output", "mlp.dense_h_to_4h": "feed_forward.up",
         "mlp.dense_4h_to_h": "feed_forward.down"}

def to_minigpt(theirs, n_heads):
    theirs = {name: torch.as_tensor(array) for name, array in theirs.items()}
    ours = {}
    for name, tensor in theirs.items():
        part, kind = name.rsplit(".", 1)
        if part in NAMES:
            ours[f"{NAMES[part]}.{kind}"] = tensor
        else:
            heads = torch.stack([torch.stack(head.chunk(3)) for head in tensor.chunk(n_heads)])
            for i, our in enumerate(["to_queries", "to_keys", "to_values"]):
                ours[f"attention.{our}.{kind}"] = heads[:, i].flatten(0, 1)
    return ours""",
        ),
    ),
    forbidden=("minigpt",),
    hints=(
        "The two axes that hide in 3·D rows: the section on whether they are the same blocks names them.",
        "Reshape 3·D rows to (H, 3, K), take one of the three, and flatten heads and rows again; the bias goes the "
        "same way.",
        "`ours = {}`",
    ),
)


# --- 10. and the growth record ---

RANKING = Question(
    id="ranking",
    title="A colleague's ranking",
    points=8,
    part="core",
    teaches="transformer-ladder",
    written=True,
    hints=(
        "The figure of what is taken away, the spread over seeds, and the list of what differs between the families.",
        "Which other things differ between the two rows, and how far apart would two seeds of one row be?",
        '"Between the two rows more than the design differs: ..."',
    ),
    rubric="4 points: two reasons (parameters, learning rate, one seed, five changes at once, far from 1 billion), "
    "each with how it could make a difference of 0.03. 2: a measurement that makes all else equal, with several seeds. "
    "2: a result that would convince, stated against the spread.",
)

RECORD = Question(
    id="growth-record",
    title="Growth record",
    points=10,
    part="record",
    teaches="transformer-record",
    written=True,
    rubric="2 points for each of the five lines that is about something the learner did: the failure, the measurement "
    "and the same measurement again with a number of their own, the cause with the rule or formula that predicts it, "
    "the repair with the change.",
)

QUESTIONS = [NORMS, ROTARY, SWIGLU, GROUPED, BLOCK, COUNT, WIDTH, CACHE, DIALECT, RANKING, RECORD]
