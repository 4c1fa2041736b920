"""Checks of lab 05, attention.

Axes: B texts, T tokens, D numbers per token, H heads, K numbers per head.
"""

import numpy as np

from grading.question import Call, Probe, Question, Read, Right, Wrong, close

FINISHED = (
    "torch.nn.functional.scaled_dot_product_attention",
    "torch.nn.MultiheadAttention",
    "torch.nn.functional.multi_head_attention_forward",
    "torch.nn.attention",
    "torch.ops",
)

# --- 1. One weight by hand ---

TABLE = Question(
    id="table",
    title="One weight by hand",
    points=6,
    part="core",
    teaches="attention-weights",
    cases=lambda rng: [Read("answer_weight")],
    expected=float(np.exp(2) / (np.exp(2) + np.exp(1.5))),
    accepts=close(5e-3),
    wrong=(
        Wrong(
            "no-mask",
            "import math\n\nanswer_weight = math.exp(2) / (math.exp(2) + math.exp(1.5) + math.exp(5))",
            "You let the second token look at the third. The causal mask leaves it two scores.",
        ),
        Wrong(
            "no-scale",
            "import math\n\nanswer_weight = math.exp(4) / (math.exp(4) + math.exp(3))",
            "You take the dot products as scores. They are divided by the square root of K first, here by 2.",
        ),
        Wrong(
            "divided-by-k",
            "import math\n\nanswer_weight = math.exp(1) / (math.exp(1) + math.exp(0.75))",
            "You divide by K = 4. The scale is the square root of K, here 2.",
        ),
        Wrong(
            "the-other-weight",
            "import math\n\nanswer_weight = math.exp(1.5) / (math.exp(2) + math.exp(1.5))",
            "This is the weight with which the token looks at itself. Asked for is the one for the token before it.",
        ),
        Wrong(
            "no-exponential",
            "answer_weight = 2 / (2 + 1.5)",
            "You divide a score by the sum of the scores. The softmax takes e to the power of each score first.",
        ),
    ),
    hints=(
        'The table of all three rows in the section "How does a token choose what to read?", and the mask by hand.',
        "Which tokens does the second one see? A score for each of them, e to the power of each, divide by the sum.",
        "`score_def = (1 * 1 + 3 * 1 + 0 * 0 + 1 * 0) / 2`",
    ),
)


# --- 2. Scores, mask, softmax ---


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def causal_weights(queries, keys):
    T, K = queries.shape
    return softmax(np.where(np.tri(T, dtype=bool), queries @ keys.T / np.sqrt(K), -np.inf))


def weights_cases(rng):
    sizes = ((5, 9, "T = 5, K = 9"), (7, 7, "as many tokens as numbers"), (1, 3, "a single token"))
    cases = [Call("causal_weights", *rng.normal(size=(2, T, K)), label=label) for T, K, label in sizes]
    return [*cases, Call("causal_weights", *(3 * rng.normal(size=(2, 4, 16))), label="large scores")]


def weights_source(scale=" / np.sqrt(K)", mask="np.tri(T, dtype=bool)", axis=1):
    """An answer to question 2 with some parts exchanged."""
    return f"""def causal_weights(queries, keys):
    T, K = queries.shape
    scores = queries @ keys.T{scale}
    scores = np.where({mask}, scores, -np.inf)
    powers = np.exp(scores)
    return powers / powers.sum(axis={axis}, keepdims=True)"""


WEIGHTS = Question(
    id="weights",
    title="Scores, mask, softmax",
    points=12,
    part="core",
    teaches="attention-mask",
    cases=weights_cases,
    expected=causal_weights,
    forbidden=FINISHED,
    wrong=(
        Wrong(
            "mask-turned-around",
            weights_source(mask="np.tri(T, dtype=bool).T"),
            "Your mask is turned around: row t sees the later tokens, not the earlier ones. Take the lower triangle.",
        ),
        Wrong(
            "mask-after-the-softmax",
            """def causal_weights(queries, keys):
    T, K = queries.shape
    powers = np.exp(queries @ keys.T / np.sqrt(K))
    return powers / powers.sum(axis=1, keepdims=True) * np.tri(T)""",
            "Your mask comes after the softmax, so your rows do not add up to 1, and later tokens still move them "
            "through the denominator. Mask the scores.",
        ),
        Wrong(
            "zero-in-place-of-minus-infinity",
            """def causal_weights(queries, keys):
    T, K = queries.shape
    powers = np.exp(queries @ keys.T / np.sqrt(K) * np.tri(T))
    return powers / powers.sum(axis=1, keepdims=True)""",
            "You set forbidden scores to 0, and e to the power of 0 is 1: these tokens still get a weight. "
            "Minus infinity gives 0.",
        ),
        Wrong(
            "no-scale",
            weights_source(scale=""),
            "The scores are not divided by the square root of K.",
        ),
        Wrong(
            "divided-by-k",
            weights_source(scale=" / K"),
            "You divide by K. A dot product of K terms grows like the square root of K, so that is the scale.",
        ),
        Wrong(
            "columns-add-up",
            weights_source(axis=0),
            "Your columns add up to 1. Each token shares out its own attention, so each row does.",
        ),
        Wrong(
            "keys-ask",
            weights_source().replace("queries @ keys.T", "keys @ queries.T"),
            "Your keys ask and your queries are asked. Row t of the scores belongs to the query of token t.",
        ),
        Wrong(
            "scale-of-four",
            weights_source(scale=" / 2"),
            "You divide by 2, and that is right for K = 4 alone. Take K from the shape of the keys.",
        ),
        Wrong(
            "does-not-see-itself",
            weights_source(mask="np.tri(T, k=-1, dtype=bool) | (np.arange(T * T).reshape(T, T) == 0)"),
            "Your tokens do not see themselves. Row t sees tokens 0 to t, and t is one of them.",
        ),
    ),
    right=(
        Right(
            "loop",
            """def causal_weights(queries, keys):
    T, K = queries.shape
    weights = np.zeros((T, T))
    for t in range(T):
        scores = np.array([queries[t] @ keys[s] / K**0.5 for s in range(t + 1)])
        weights[t, : t + 1] = np.exp(scores) / np.exp(scores).sum()
    return weights""",
        ),
        Right(
            "torch",
            """import torch

def causal_weights(queries, keys):
    queries, keys = torch.as_tensor(queries), torch.as_tensor(keys)
    scores = queries @ keys.T / queries.shape[1] ** 0.5
    forbidden = torch.ones_like(scores).triu(1).bool()
    return scores.masked_fill(forbidden, float("-inf")).softmax(dim=-1)""",
        ),
        Right(
            "very-negative",
            """def causal_weights(queries, keys):
    T, K = queries.shape
    scores = np.einsum("tk,sk->ts", queries, keys) / np.sqrt(K) - 1e9 * np.triu(np.ones((T, T)), k=1)
    scores = scores - scores.max(axis=1, keepdims=True)
    return np.exp(scores) / np.exp(scores).sum(axis=1)[:, None]""",
        ),
    ),
    hints=(
        "The function `attention` at the top of the chapter, and the mask by hand; numpy's lower triangle is `np.tri`, "
        "and `np.where(a, b, c)` takes from b where a is true, else from c.",
        "All scores are one product of two tables; −infinity where a row must not look; then a softmax in each row.",
        "`T, K = queries.shape`",
    ),
)


# --- 3. Heads ---


def split_heads(x, H):
    B, T, D = x.shape
    return x.reshape(B, T, H, D // H).transpose(0, 2, 1, 3)


def merge_heads(x):
    B, H, T, K = x.shape
    return x.transpose(0, 2, 1, 3).reshape(B, T, H * K)


THERE_AND_BACK = """
answer = [split_heads(x, H), merge_heads(pieces)]
"""


def both(x, H, pieces):
    return [split_heads(x, H), merge_heads(pieces)]


def heads_cases(rng):
    def case(B, T, H, K, label):
        inputs = {"x": rng.normal(size=(B, T, H * K)), "H": H, "pieces": rng.normal(size=(B, H, T, K))}
        return Probe(THERE_AND_BACK, inputs, label=label)

    return [
        case(2, 5, 3, 4, "B = 2, T = 5, three heads of 4"),
        case(1, 4, 4, 2, "as many tokens as heads"),
        case(3, 2, 1, 5, "a single head"),
    ]


def heads_source(split, merge="x.transpose(0, 2, 1, 3).reshape(B, T, H * K)"):
    """An answer to question 3 with these two expressions."""
    return f"""def split_heads(x, H):
    B, T, D = x.shape
    return {split}

def merge_heads(x):
    B, H, T, K = x.shape
    return {merge}"""


SPLIT = "x.reshape(B, T, H, D // H).transpose(0, 2, 1, 3)"

HEADS = Question(
    id="heads",
    title="Heads, there and back",
    points=10,
    part="core",
    teaches="attention-heads",
    cases=heads_cases,
    expected=both,
    wrong=(
        Wrong(
            "reshape-alone",
            heads_source("x.reshape(B, H, T, D // H)", "x.reshape(B, T, H * K)"),
            "You reshape in one go, so the first head holds the first tokens. Cut D into (H, K), then move the axis.",
        ),
        Wrong(
            "split-by-reshape",
            heads_source("x.reshape(B, H, T, D // H)"),
            "Your split reshapes in one go: its first head holds whole tokens. Cut D into (H, K), then move H.",
        ),
        Wrong(
            "merge-by-reshape",
            heads_source(SPLIT, "x.reshape(B, T, H * K)"),
            "Your split is right. Your merge forgets to move the axis of heads back, and mixes up the tokens.",
        ),
        Wrong(
            "every-h-th-number",
            heads_source(
                "x.reshape(B, T, D // H, H).transpose(0, 3, 1, 2)", "x.transpose(0, 2, 3, 1).reshape(B, T, H * K)"
            ),
            "Your heads take every H-th number. Head h gets K neighboring ones, from h * K on.",
        ),
        Wrong(
            "heads-behind-tokens",
            heads_source("x.reshape(B, T, H, D // H)"),
            "Your split stops half way, with the shape (B, T, H, K). The axis of heads stands before the tokens.",
        ),
    ),
    right=(
        Right(
            "cut-and-stack",
            """def split_heads(x, H):
    return np.stack(np.split(np.asarray(x), H, axis=2), axis=1)

def merge_heads(x):
    return np.concatenate([x[:, h] for h in range(x.shape[1])], axis=-1)""",
        ),
        Right(
            "torch",
            """import torch

def split_heads(x, H):
    x = torch.as_tensor(x)
    return x.view(*x.shape[:2], H, -1).transpose(1, 2)

def merge_heads(x):
    return torch.as_tensor(x).transpose(1, 2).flatten(2)""",
        ),
        Right(
            "loop",
            """def split_heads(x, H):
    B, T, D = x.shape
    K = D // H
    out = np.zeros((B, H, T, K))
    for h in range(H):
        out[:, h] = x[:, :, h * K:(h + 1) * K]
    return out

def merge_heads(x):
    B, H, T, K = x.shape
    out = np.zeros((B, T, H * K))
    for h in range(H):
        out[:, :, h * K:(h + 1) * K] = x[:, h]
    return out""",
        ),
    ),
    hints=(
        "`split_heads` and `merge_heads` in the chapter; numpy's `transpose` takes the order of all axes.",
        "Reshape only cuts or joins neighboring axes: cut D into (H, K), then move H before T. Merge backwards.",
        "`B, T, D = x.shape`",
    ),
)


# --- 4. One head ---


def attend(x, to_queries, to_keys, to_values):
    return causal_weights(x @ to_queries.T, x @ to_keys.T) @ (x @ to_values.T)


def attend_cases(rng):
    sizes = ((6, 5, 3, "T = 6, D = 5, K = 3"), (4, 4, 4, "K as large as D"), (1, 3, 2, "a single token"))
    return [
        Call("attend", rng.normal(size=(T, D)), *rng.normal(size=(3, K, D)), label=label) for T, D, K, label in sizes
    ]


def attend_source(asks="queries", asked="keys", mixed="values", scale=" / np.sqrt(keys.shape[1])", mask=True):
    """An answer to question 4 with some parts exchanged."""
    masked = "np.where(np.tri(len(x), dtype=bool), scores, -np.inf)" if mask else "scores"
    return f"""def attend(x, to_queries, to_keys, to_values):
    queries, keys, values = x @ to_queries.T, x @ to_keys.T, x @ to_values.T
    scores = {asks} @ {asked}.T{scale}
    powers = np.exp({masked})
    return powers / powers.sum(axis=1, keepdims=True) @ {mixed}"""


ATTEND = Question(
    id="attend",
    title="One head of attention",
    points=12,
    part="core",
    teaches="attention-weights",
    cases=attend_cases,
    expected=attend,
    forbidden=FINISHED,
    wrong=(
        Wrong(
            "keys-ask",
            attend_source(asks="keys", asked="queries"),
            "Your keys ask and your queries are asked. Row t of the scores belongs to the query of token t.",
        ),
        Wrong(
            "mixes-keys",
            attend_source(mixed="keys"),
            "You mix the keys. They decide who is chosen; what is handed over are the values.",
        ),
        Wrong(
            "no-mask",
            attend_source(mask=False),
            "Every token sees the whole text. Without the causal mask, the answer stands in the question.",
        ),
        Wrong(
            "finished",
            """import torch

def attend(x, to_queries, to_keys, to_values):
    x, *given = (torch.as_tensor(array) for array in (x, to_queries, to_keys, to_values))
    queries, keys, values = (x @ weights.T for weights in given)
    return torch.ops.aten.scaled_dot_product_attention(queries[None], keys[None], values[None], is_causal=True)[0]""",
            "You call the finished attention of torch. Write scores, mask, softmax and mixture yourself.",
        ),
        Wrong(
            "no-scale",
            attend_source(scale=""),
            "The scores are not divided by the square root of K.",
        ),
        Wrong(
            "scaled-by-d",
            attend_source(scale=" / np.sqrt(x.shape[1])"),
            "You divide by the square root of D. A dot product of query and key has K terms, so K sets the scale.",
        ),
        Wrong(
            "neurons-in-columns",
            "def attend(x, to_queries, to_keys, to_values):\n"
            "    queries, keys, values = x @ to_queries, x @ to_keys, x @ to_values\n"
            "    scores = queries @ keys.T / np.sqrt(keys.shape[1])\n"
            "    powers = np.exp(np.where(np.tri(len(x), dtype=bool), scores, -np.inf))\n"
            "    return powers / powers.sum(axis=1, keepdims=True) @ values",
            "You read the weights of a neuron from a column. They stand in a row, so use to_queries.T.",
        ),
    ),
    right=(
        Right(
            "loop",
            """def attend(x, to_queries, to_keys, to_values):
    K = len(to_queries)
    rows = []
    for t in range(len(x)):
        query = to_queries @ x[t]
        powers = [np.exp(query @ (to_keys @ x[s]) / K**0.5) for s in range(t + 1)]
        rows.append(sum(p * (to_values @ x[s]) for s, p in enumerate(powers)) / sum(powers))
    return np.array(rows)""",
        ),
        Right(
            "torch",
            """import torch

def attend(x, to_queries, to_keys, to_values):
    x, to_queries, to_keys, to_values = (torch.as_tensor(a) for a in (x, to_queries, to_keys, to_values))
    queries, keys, values = (torch.nn.functional.linear(x, w) for w in (to_queries, to_keys, to_values))
    scores = queries @ keys.mT * keys.shape[-1] ** -0.5
    later = torch.ones_like(scores, dtype=torch.bool).triu(1)
    return torch.softmax(scores.masked_fill(later, -torch.inf), dim=-1) @ values""",
        ),
    ),
    hints=(
        "The function `attention` at the top of the chapter, and `attend` of its model, without the heads.",
        "Three products make queries, keys and values; then exercise 2 again; then one product with the values.",
        "`queries, keys, values = x @ to_queries.T, x @ to_keys.T, x @ to_values.T`",
    ),
)


# --- 5. Does it leak? ---

# Attentions that look into the future, and such as do not. All are built in the sandbox from what they see.
ATTENTIONS = """
def weights_of(x, sees):
    scores = np.tanh(x @ x.T)
    powers = np.exp(np.where(sees, scores - scores.max(), -np.inf))  # the largest of all: the same but for rounding
    return powers / powers.sum(axis=1, keepdims=True)

def attention(x):
    T = len(x)
    sees = np.tri(T, dtype=bool)
    if kind == "window":
        sees &= ~np.tri(T, k=-3, dtype=bool)
    elif kind == "everything":
        sees |= True
    elif kind == "turned":
        sees = sees.T
    elif kind == "one too far":
        sees |= np.tri(T, k=1, dtype=bool)
    elif kind == "one pair":
        sees[early, late] = True
    if kind == "running mean":
        return np.cumsum(x, axis=0) / np.arange(1, T + 1)[:, None]
    if kind == "falling":
        return np.tile(-x.mean(axis=0), (T, 1))
    if kind == "denominator":
        return weights_of(x, np.ones((T, T), dtype=bool)) * sees @ x
    return weights_of(x, sees) @ x

answer = leaks(attention, x)
"""

KINDS = {
    "causal": "a causal attention, with its rounding errors",
    "running mean": "a mean of all tokens so far",
    "window": "an attention that sees itself and two tokens before it",
    "everything": "an attention without a mask",
    "turned": "a mask turned around",
    "one too far": "a mask that reaches one token too far",
    "denominator": "a mask after the softmax",
    "falling": "answers that go down when any token goes up",
    "one pair": "a single token that sees a single later one",
}


def does_leak(x, kind, early, late):
    return kind not in ("causal", "running mean", "window")


def leaks_cases(rng):
    def case(kind, early=0, late=0):
        T = 12 if kind == "causal" else 7  # long enough for rounding errors
        inputs = {"x": rng.normal(size=(T, 4)), "kind": kind, "early": early, "late": late}
        return Probe(ATTENTIONS, inputs, label=KINDS[kind])

    cases = [case(kind) for kind in KINDS if kind != "one pair"]
    cases += [case("one pair", 0, 6), case("one pair", 1, 2)]
    return [cases[i] for i in rng.permutation(len(cases))]


def leaks_source(ts="range(1, len(x))", moved="np.abs(attention(changed)[:t] - answers[:t]).max() > 1e-6"):
    """An answer to question 5 with some parts exchanged."""
    return f"""def leaks(attention, x):
    answers = attention(x)
    for t in {ts}:
        changed = x.copy()
        changed[t] += 1.0
        if {moved}:
            return True
    return False"""


LEAKS = Question(
    id="leaks",
    title="Does it leak?",
    points=12,
    part="core",
    teaches="attention-mask",
    cases=leaks_cases,
    expected=does_leak,
    wrong=(
        Wrong(
            "changes-the-text-itself",
            "def leaks(attention, x):\n"
            "    for t in range(1, len(x)):\n"
            "        changed = x\n"
            "        changed[t] += 1.0\n"
            "        if np.abs(attention(changed)[:t] - attention(x)[:t]).max() > 1e-6:\n"
            "            return True\n"
            "    return False",
            "You never find a leak: `changed = x` is the same array under a second name, so both runs read the changed "
            "text. Use x.copy().",
        ),
        Wrong(
            "only-the-last-token",
            leaks_source(ts="[len(x) - 1]"),
            "You change the last token alone. An early token may see one a little later: try every t.",
        ),
        Wrong(
            "only-the-neighbor",
            leaks_source(moved="np.abs(attention(changed)[t - 1] - answers[t - 1]).max() > 1e-6"),
            "You watch only the answer right before the change. A leak may reach farther: watch all answers before it.",
        ),
        Wrong(
            "watches-all-answers",
            leaks_source(moved="np.abs(attention(changed) - answers).max() > 1e-6"),
            "You watch all answers. A token may move its own answer and later ones; only those before it must stay.",
        ),
        Wrong(
            "only-upward",
            leaks_source(moved="(attention(changed)[:t] - answers[:t]).max() > 1e-6"),
            "You look for answers that go up. One that goes down has moved as well: compare sizes, with np.abs.",
        ),
        Wrong(
            "to-the-last-digit",
            leaks_source(moved="(attention(changed)[:t] != answers[:t]).any()"),
            "You ask for equality to the last digit. Computers round: differences below 1e-6 are no leak.",
        ),
    ),
    right=(
        Right(
            "all-that-follows",
            """def leaks(attention, x):
    x = np.asarray(x)
    found = False
    for t in range(1, len(x)):
        other = np.concatenate([x[:t], x[t:] + 1.0])
        found = found or not np.allclose(attention(other)[:t], attention(x)[:t], rtol=0, atol=1e-6)
    return found""",
        ),
        Right(
            "table-of-moves",
            """def leaks(attention, x):
    T = len(x)
    moves = np.zeros((T, T))
    for t in range(T):
        changed = np.array(x)
        changed[t] = changed[t] + 0.7
        moves[:, t] = np.abs(attention(changed) - attention(x)).max(axis=1)
    return bool((np.triu(moves, k=1) > 1e-6).any())""",
        ),
        Right(
            "number-by-number",
            """def leaks(attention, x):
    before = attention(x.copy())
    for t, d in np.ndindex(x.shape):
        y = x.copy()
        y[t, d] -= 1
        if t and np.max(np.abs(attention(y) - before)[:t]) > 1e-6:
            return np.bool_(True)
    return np.bool_(False)""",
        ),
    ),
    hints=(
        "The function `watch` in the section on the mask: it changes one token and marks the answers that move.",
        "For every t from 1 on: a copy with row t changed; compare both answers before t; one that moved is enough.",
        "`answers = attention(x)`",
    ),
)


# --- 6. Bytes of scores ---

BYTES = Question(
    id="bytes",
    title="Bytes of scores",
    points=8,
    part="core",
    teaches="attention-cost",
    cases=lambda rng: [Read("answer_bytes")],
    expected=4 * 8 * 16 * 2_000**2,
    wrong=(
        Wrong(
            "one-score-a-token",
            "answer_bytes = 4 * 8 * 16 * 2_000",
            "You count one score for each token. Every token has a score for every token, so T counts twice.",
        ),
        Wrong(
            "one-head",
            "answer_bytes = 4 * 8 * 2_000**2",
            "The heads are missing: each of the 16 has a table of its own.",
        ),
        Wrong(
            "one-text",
            "answer_bytes = 4 * 16 * 2_000**2",
            "The batch is missing: each of the 8 texts has tables of its own.",
        ),
        Wrong(
            "numbers",
            "answer_bytes = 8 * 16 * 2_000**2",
            "You count numbers. Each of them takes 4 bytes.",
        ),
        Wrong(
            "bits",
            "answer_bytes = 32 * 8 * 16 * 2_000**2",
            "You count bits: 32 for each number. Asked for are bytes.",
        ),
        Wrong(
            "half-a-table",
            "answer_bytes = 4 * 8 * 16 * 2_000 * 2_001 // 2",
            "You count what the mask allows. The whole table is held; its forbidden half holds minus infinity.",
        ),
    ),
    hints=(
        'The first paragraph of the section "What does it cost?", and the column MB in the cell below it.',
        "The scores have the shape (B, H, T, T): multiply, then think of the bytes.",
        "`scores = 8 * 16 * 2_000 * 2_000`",
    ),
)


# --- 7. A volume in cubes ---

VOLUME = Question(
    id="volume",
    title="A volume in cubes",
    points=6,
    part="stretch",
    teaches="attention-cost",
    cases=lambda rng: [Read("answer_table")],
    expected=4 * 64.0**6,
    accepts=close(5e-3),
    wrong=(
        Wrong(
            "every-point",
            "answer_table = 4 * (512**3) ** 2",
            "You make every point a token. A cube of 8 x 8 x 8 points is one, so there are 512 times fewer.",
        ),
        Wrong(
            "one-edge",
            "answer_table = 4 * 64**2",
            "You count the cubes along one edge. There are 64 along each of three edges.",
        ),
        Wrong(
            "one-score-a-cube",
            "answer_table = 4 * 64**3",
            "You count one score for each cube. Every cube has a score for every cube.",
        ),
        Wrong(
            "numbers",
            "answer_table = 64**6",
            "You count numbers. Each of them takes 4 bytes.",
        ),
        Wrong(
            "one-eighth",
            "answer_table = 4 * (512**3 // 8) ** 2",
            "You divide the number of points by 8. A cube of 8 x 8 x 8 holds 512 points.",
        ),
    ),
    hints=(
        "The paragraph below Figure 6, and the cell above it that counts exabytes.",
        "How many cubes lie along one edge, how many in the volume? Every cube has a score for every cube.",
        "`T = (512 // 8) ** 3`",
    ),
)


# --- 8. One token at a time ---

ONE_BY_ONE = """
cache = {"keys": [], "values": []}
rows = [np.asarray(step(cache, queries[t], keys[t], values[t]), dtype=float).reshape(-1) for t in range(len(queries))]
answer = [np.array(rows), len(cache["keys"]), len(cache["values"])]
"""


def at_once(queries, keys, values):
    return [causal_weights(queries, keys) @ values, len(keys), len(values)]


def step_cases(rng):
    def case(T, K, label):
        queries, keys, values = rng.normal(size=(3, T, K))
        return Probe(ONE_BY_ONE, {"queries": queries, "keys": keys, "values": values}, label=label)

    return [case(6, 9, "six tokens"), case(12, 2, "twelve tokens of width 2"), case(1, 4, "a single token")]


def step_source(store='cache["keys"].append(key)\n    cache["values"].append(value)', scale=" / np.sqrt(len(query))",
                keys='np.array(cache["keys"])', values='np.array(cache["values"])'):
    """An answer to question 8 with some parts exchanged."""
    return f"""def step(cache, query, key, value):
    {store}
    scores = {keys} @ query{scale}
    powers = np.exp(scores)
    return powers / powers.sum() @ {values}"""


STEP = Question(
    id="step",
    title="One token at a time",
    points=14,
    part="stretch",
    teaches="attention-mask",
    cases=step_cases,
    expected=at_once,
    forbidden=FINISHED,
    wrong=(
        Wrong(
            "stores-nothing",
            """def step(cache, query, key, value):
    keys = np.array(cache["keys"] + [key])
    values = np.array(cache["values"] + [value])
    powers = np.exp(keys @ query / np.sqrt(len(query)))
    return powers / powers.sum() @ values""",
            "Your answer uses the new key and value and then forgets them: afterwards the cache must hold them.",
        ),
        Wrong(
            "does-not-see-itself",
            """def step(cache, query, key, value):
    keys = np.array(cache["keys"] or [key])
    values = np.array(cache["values"] or [value])
    cache["keys"].append(key)
    cache["values"].append(value)
    powers = np.exp(keys @ query / np.sqrt(len(query)))
    return powers / powers.sum() @ values""",
            "Your newest token sees the earlier ones and not itself. Store its key and value first.",
        ),
        Wrong(
            "no-scale",
            step_source(scale=""),
            "The scores are not divided by the square root of K.",
        ),
        Wrong(
            "mixes-keys",
            step_source(values='np.array(cache["keys"])'),
            "You mix the keys. They decide who is chosen; what is handed over are the values.",
        ),
        Wrong(
            "newest-first",
            step_source(store='cache["keys"].insert(0, key)\n    cache["values"].append(value)'),
            "Your keys and your values stand in different orders, so each score chooses the value of another token.",
        ),
        Wrong(
            "keeps-one",
            step_source(store='cache["keys"][:] = [*cache["keys"][-1:], key]\n    '
                              'cache["values"][:] = [*cache["values"][-1:], value]'),
            "Your cache forgets: it keeps the last token and the new one. Causal attention sees all earlier tokens.",
        ),
        Wrong(
            "not-divided",
            step_source().replace(" / powers.sum()", ""),
            "Your weights are powers of e that nobody has divided by their sum, so they do not add up to 1.",
        ),
    ),
    right=(
        Right(
            "loop",
            """def step(cache, query, key, value):
    cache["keys"] = cache["keys"] + [key]
    cache["values"] = cache["values"] + [value]
    total, mixed = 0.0, np.zeros(len(value))
    for k, v in zip(cache["keys"], cache["values"]):
        power = np.exp(sum(a * b for a, b in zip(query, k)) / len(query) ** 0.5)
        total += power
        mixed += power * v
    return mixed / total""",
        ),
        Right(
            "torch",
            """import torch

def step(cache, query, key, value):
    for name, row in (("keys", key), ("values", value)):
        cache[name].append(torch.as_tensor(row))
    keys, values = torch.stack(cache["keys"]), torch.stack(cache["values"])
    return torch.softmax(keys @ torch.as_tensor(query) / len(query) ** 0.5, dim=0) @ values""",
        ),
    ),
    hints=(
        "Exercise 2, the last row alone: the newest token sees everything, so no mask is needed.",
        "Store the new key and value, score the query against all keys of the cache, softmax, mix the values.",
        '`cache["keys"].append(key)`',
    ),
)


# --- 9. and the growth record ---

WHY = Question(
    id="why-before",
    title="Why before the softmax?",
    points=10,
    part="core",
    teaches="attention-mask",
    written=True,
    hints=(
        "The last line of the leak test in the section on the mask, and the paragraph below it.",
        "What does the softmax divide by? Which tokens are in that sum?",
        '"The softmax divides every weight by ..."',
    ),
    rubric="2 points: her rows add up to less than 1. 3: a later token moves an earlier answer through the sum that "
    "the softmax divides by, with an example in numbers that is right. 3: dividing by the sum of the row afterwards "
    "does repair it: the common denominator cancels, and the softmax of the allowed scores is left. 2: change a later "
    "token and watch the earlier answers.",
)

RECORD = Question(
    id="growth-record",
    title="Growth record",
    points=10,
    part="record",
    teaches="attention-record",
    written=True,
    rubric="2 points for each of the five lines that is about something the learner did: the failure, the measurement "
    "and the same measurement again with a number of their own, the cause with the rule or formula that predicts it, "
    "the repair with the change.",
)

QUESTIONS = [TABLE, WEIGHTS, HEADS, ATTEND, LEAKS, BYTES, VOLUME, STEP, WHY, RECORD]
