"""Checks of lab 03, bigram.

Axes: V tokens in the vocabulary, T tokens in a text.
"""

import numpy as np

from grading.question import Call, Question, Read, Right, Wrong, close


def row_of(rng, V):
    """Probabilities of V tokens, none of them tiny, all apart."""
    while True:
        row = rng.dirichlet(np.full(V, 1.5))
        if row.min() > 0.01 and np.diff(np.sort(row)).min() > 0.005:
            return row


def table_of(rng, V):
    return np.array([row_of(rng, V) for _ in range(V)])


# --- 1. Who follows whom? ---


def count_pairs(ids, V):
    counts = np.zeros((V, V))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    return counts


def text_of(rng, V, T):
    """Ids in which some pair comes twice, and the pair of last and first does not come otherwise."""
    ids = rng.integers(0, V - 1, size=T)
    ids[:4] = [0, 1, 0, 1]
    ids[-1] = V - 1
    return ids


def count_cases(rng):
    return [
        Call("count_pairs", text_of(rng, 4, 12), 4, label="a text in which pairs repeat"),
        Call("count_pairs", text_of(rng, 7, 40), 7, label="a longer text"),
        Call("count_pairs", np.array([2, 2, 2]), 5, label="a token that follows itself"),
    ]


COUNT = Question(
    id="count",
    title="Who follows whom?",
    points=12,
    part="core",
    teaches="bigram-counts",
    cases=count_cases,
    expected=count_pairs,
    accepts=close(1e-9),
    wrong=(
        Wrong(
            "each-pair-once",
            """import numpy as np

def count_pairs(ids, V):
    counts = np.zeros((V, V))
    counts[ids[:-1], ids[1:]] += 1
    return counts""",
            "A pair that comes twice is counted once: with a list of places, numpy's += adds to each place only once. "
            "Use np.add.at, or a loop.",
        ),
        Wrong(
            "second-before-first",
            """import numpy as np

def count_pairs(ids, V):
    counts = np.zeros((V, V))
    np.add.at(counts, (ids[1:], ids[:-1]), 1)
    return counts""",
            "Rows and columns are exchanged: your table says what comes before, not what comes after.",
        ),
        Wrong(
            "around-the-corner",
            """import numpy as np

def count_pairs(ids, V):
    counts = np.zeros((V, V))
    np.add.at(counts, (ids, np.roll(ids, -1)), 1)
    return counts""",
            "You also count the last token followed by the first. Nothing follows the last token.",
        ),
        Wrong(
            "both-ways",
            """import numpy as np

def count_pairs(ids, V):
    counts = np.zeros((V, V))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    return counts + counts.T""",
            "You count each pair in both directions. Order matters: after q comes u, and not the other way round.",
        ),
        Wrong(
            "last-pair-missing",
            """import numpy as np

def count_pairs(ids, V):
    counts = np.zeros((V, V))
    np.add.at(counts, (ids[:-2], ids[1:-1]), 1)
    return counts""",
            "The last pair is missing: T tokens have T - 1 pairs.",
        ),
    ),
    right=(
        Right(
            "loop",
            """def count_pairs(ids, V):
    counts = [[0] * V for _ in range(V)]
    for first, second in zip(ids[:-1], ids[1:]):
        counts[int(first)][int(second)] += 1
    return counts""",
        ),
        Right(
            "one-number-a-pair",
            """import numpy as np

def count_pairs(ids, V):
    return np.bincount(ids[:-1] * V + ids[1:], minlength=V * V).reshape(V, V)""",
        ),
    ),
    hints=(
        "`count_pairs` in the first cell of the chapter; mind the remark beside `np.add.at`.",
        "The first tokens of all pairs are `ids[:-1]`, the second ones are `ids[1:]`: add 1 at each of these places.",
        "`counts = np.zeros((V, V))`",
    ),
)


# --- 2. Never zero ---


def smooth(counts, k):
    counts = np.asarray(counts)
    return (counts + k) / (counts.sum(axis=1, keepdims=True) + k * counts.shape[1])


def smooth_cases(rng):
    def counts(V):
        table = rng.integers(0, 9, size=(V, V)).astype(float)
        table[0, 1] = 0
        return table

    empty = counts(4)
    empty[2] = 0
    return [
        Call("smooth", counts(5), 1.0, label="k = 1"),
        Call("smooth", counts(3), 0.05, label="a small k"),
        Call("smooth", empty, 0.5, label="a token that was never seen first"),
    ]


SMOOTH = Question(
    id="smooth",
    title="Never zero",
    points=12,
    part="core",
    teaches="bigram-smoothing",
    cases=smooth_cases,
    expected=smooth,
    wrong=(
        Wrong(
            "does-not-add-up",
            "def smooth(counts, k):\n    return (counts + k) / counts.sum(axis=1, keepdims=True)",
            "Your rows add up to more than 1: V columns got k each, so k V belongs to the sum below as well.",
        ),
        Wrong(
            "k-once",
            "def smooth(counts, k):\n    return (counts + k) / (counts.sum(axis=1, keepdims=True) + k)",
            "You add k to the sum of a row once. Every one of its V columns got k, so the sum grows by k V.",
        ),
        Wrong(
            "sums-as-a-row",
            """def smooth(counts, k):
    return (counts + k) / (counts.sum(axis=1) + k * counts.shape[1])""",
            "You divide each column by the sum of a row: numpy lays the V sums along the columns. With keepdims=True "
            "they are a column, one for each row.",
        ),
        Wrong(
            "columns",
            """def smooth(counts, k):
    return (counts + k) / (counts.sum(axis=0, keepdims=True) + k * counts.shape[0])""",
            "Your columns add up to 1. Given the first token, something must come second: the rows add up to 1.",
        ),
        Wrong(
            "whole-table",
            "def smooth(counts, k):\n    return (counts + k) / (counts.sum() + k * counts.size)",
            "Your whole table adds up to 1. A conditional probability has a sum for each first token: row by row.",
        ),
        Wrong(
            "only-the-zeros",
            """import numpy as np

def smooth(counts, k):
    filled = np.where(counts == 0, k, counts)
    return filled / filled.sum(axis=1, keepdims=True)""",
            "You put k where a count was 0 and leave the others alone. Add-k smoothing adds k everywhere.",
        ),
    ),
    right=(
        Right(
            "loop",
            """def smooth(counts, k):
    table = []
    for row in counts:
        total = sum(row) + k * len(row)
        table.append([(n + k) / total for n in row])
    return table""",
        ),
        Right(
            "add-then-divide",
            """def smooth(counts, k):
    more = counts + k
    return (more.T / more.sum(axis=1)).T""",
        ),
    ),
    hints=(
        "The formula in the section on pairs that were never seen, and the function below it.",
        "Add k everywhere first; the sum of a row of the new table is what its entries have to be divided by.",
        "`more = counts + k`",
    ),
)


# --- 3. Bits ---


def bits_per_byte(table, ids, lengths):
    nats = -np.log(table[ids[:-1], ids[1:]])
    return float(nats.sum() / np.log(2) / lengths[ids[1:]].sum())


def bits_cases(rng):
    def case(V, T, longest, label):
        lengths = rng.integers(1, longest + 1, size=V)
        lengths[0] = longest
        ids = rng.integers(0, V, size=T)
        ids[0] = 0
        return Call("bits_per_byte", table_of(rng, V), ids, lengths, label=label)

    return [case(5, 12, 4, "tokens of one to four bytes"), case(3, 30, 1, "tokens of one byte"),
            case(6, 2, 3, "a single pair")]


BITS = Question(
    id="bits",
    title="Bits per byte of a table",
    points=12,
    part="core",
    teaches="bigram-loss",
    cases=bits_cases,
    expected=bits_per_byte,
    wrong=(
        Wrong(
            "per-token",
            """import numpy as np

def bits_per_byte(table, ids, lengths):
    return np.mean(-np.log2(table[ids[:-1], ids[1:]]))""",
            "This is bits per token. Divide the sum of all bits by the bytes that the tokens stand for.",
        ),
        Wrong(
            "nats",
            """import numpy as np

def bits_per_byte(table, ids, lengths):
    return np.sum(-np.log(table[ids[:-1], ids[1:]])) / np.sum(lengths[ids[1:]])""",
            "This is nats per byte: you took the natural logarithm. One bit is ln 2 nats.",
        ),
        Wrong(
            "counts-the-first-token",
            """import numpy as np

def bits_per_byte(table, ids, lengths):
    return np.sum(-np.log2(table[ids[:-1], ids[1:]])) / np.sum(lengths[ids])""",
            "You divide by the bytes of all tokens. The first one is given, not predicted, so its bytes do not count.",
        ),
        Wrong(
            "bytes-of-the-token-before",
            """import numpy as np

def bits_per_byte(table, ids, lengths):
    return np.sum(-np.log2(table[ids[:-1], ids[1:]])) / np.sum(lengths[ids[:-1]])""",
            "You divide by the bytes of the tokens before. The bits were paid for those that come after them, ids[1:].",
        ),
        Wrong(
            "second-before-first",
            """import numpy as np

def bits_per_byte(table, ids, lengths):
    return np.sum(-np.log2(table[ids[1:], ids[:-1]])) / np.sum(lengths[ids[1:]])""",
            "Rows and columns are exchanged: you look up the first token, given the second. The row is the first.",
        ),
        Wrong(
            "mean-of-ratios",
            """import numpy as np

def bits_per_byte(table, ids, lengths):
    return np.mean(-np.log2(table[ids[:-1], ids[1:]]) / lengths[ids[1:]])""",
            "You divide token by token and then take the mean, so that short tokens count too much. "
            "Divide the sum of the bits by the sum of the bytes.",
        ),
        Wrong(
            "log-of-the-mean",
            """import numpy as np

def bits_per_byte(table, ids, lengths):
    p = table[ids[:-1], ids[1:]]
    return -np.log2(np.mean(p)) * len(p) / np.sum(lengths[ids[1:]])""",
            "You take the mean of the probabilities and then its logarithm. First the logarithm of each, then add up.",
        ),
    ),
    right=(
        Right(
            "loop",
            """import math

def bits_per_byte(table, ids, lengths):
    bits = n_bytes = 0
    for first, second in zip(ids[:-1], ids[1:]):
        bits -= math.log(table[first][second], 2)
        n_bytes += lengths[second]
    return bits / n_bytes""",
        ),
        Right(
            "from-nats",
            """import numpy as np

def bits_per_byte(table, ids, lengths):
    nats = -np.log(table[ids[:-1], ids[1:]]).sum()
    return nats / np.log(2) / lengths[ids[1:]].sum()""",
        ),
    ),
    hints=(
        "`table_bits` in the section on how good a table is, and bits per byte in chapter 00.",
        "One sum above, the bits of all predicted tokens; one sum below, the bytes of the same tokens.",
        "`bits = -np.log2(table[ids[:-1], ids[1:]])`",
    ),
)


# --- 4. Daring ---


def with_temperature(row, tau):
    powers = np.asarray(row) ** (1 / tau)
    return powers / powers.sum()


def temperature_cases(rng):
    return [
        Call("with_temperature", row_of(rng, 5), 0.5, label="a low temperature"),
        Call("with_temperature", row_of(rng, 4), float(rng.uniform(1.6, 2.5)), label="a high temperature"),
        Call("with_temperature", np.append(row_of(rng, 4), 0.0), 0.8, label="a row with a zero"),
    ]


TEMPERATURE = Question(
    id="temperature",
    title="Daring",
    points=10,
    part="core",
    teaches="bigram-sampling",
    cases=temperature_cases,
    expected=with_temperature,
    wrong=(
        Wrong(
            "upside-down",
            """def with_temperature(row, tau):
    powers = row ** tau
    return powers / powers.sum()""",
            "You raise to the power tau, so a high temperature makes the likeliest likelier. Raise to the power 1/tau.",
        ),
        Wrong(
            "times",
            """def with_temperature(row, tau):
    scaled = row * tau
    return scaled / scaled.sum()""",
            "You multiply all by the same number and divide by the sum: that changes nothing. "
            "The temperature works as a power.",
        ),
        Wrong(
            "not-divided",
            "def with_temperature(row, tau):\n    return row ** (1 / tau)",
            "Your row does not add up to 1 any more. Divide by the sum at the end.",
        ),
        Wrong(
            "softmax-of-probabilities",
            """import numpy as np

def with_temperature(row, tau):
    powers = np.exp(row / tau)
    return powers / powers.sum()""",
            "You treat the probabilities as scores and take their softmax. These already are probabilities: "
            "take a power of each, or go through the logarithm first.",
        ),
    ),
    right=(
        Right(
            "through-the-logarithm",
            """import numpy as np

def with_temperature(row, tau):
    with np.errstate(divide="ignore"):
        scores = np.log(row) / tau
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()""",
        ),
        Right(
            "list",
            """def with_temperature(row, tau):
    powers = [float(p) ** (1 / tau) for p in row]
    return [power / sum(powers) for power in powers]""",
        ),
    ),
    hints=(
        "The example with four probabilities below the words \"Two knobs\".",
        "A power of each entry, then one division; which power is above 1 when the temperature is below 1?",
        "`powers = row ** (1 / tau)`",
    ),
)


# --- 5. Without the tail ---


def top_p(row, p):
    row = np.asarray(row)
    order = np.argsort(row)[::-1]
    before = np.cumsum(row[order]) - row[order]
    kept = np.zeros_like(row)
    kept[order[before < p]] = row[order[before < p]]
    return kept / kept.sum()


def cut_of(rng, V):
    """A row and a p well between two sums, where a bar at a share of the likeliest would not keep the same."""
    while True:
        row = row_of(rng, V)
        sums = np.cumsum(np.sort(row)[::-1])
        place = int(rng.integers(1, V - 2))
        p = float((sums[place - 1] + sums[place]) / 2)
        bar_keeps = np.sum(row >= (1 - p) * row.max())
        if sums[place] - sums[place - 1] > 0.06 and np.argmax(row) > 0 and bar_keeps != place + 1:
            return row, p


def top_p_cases(rng):
    certain = np.array([0.02, 0.9, 0.05, 0.03])
    exact = np.array([0.0625, 0.5, 0.1875, 0.25])  # powers of 2 and their sums: no rounding
    short = rng.permutation([0.4, 0.3, 0.2, 0.1])  # from the likeliest down: 0.9999999999999999
    return [
        Call("top_p", *cut_of(rng, 6), label="six tokens"),
        Call("top_p", *cut_of(rng, 9), label="nine tokens"),
        Call("top_p", certain, 0.5, label="one token that has more than p alone"),
        Call("top_p", exact, 0.75, label="two tokens that have exactly p"),
        Call("top_p", short, 1.0, label="p = 1"),
    ]


TOP_P = Question(
    id="top-p",
    title="Without the tail",
    points=12,
    part="core",
    teaches="bigram-sampling",
    cases=top_p_cases,
    expected=top_p,
    wrong=(
        Wrong(
            "one-too-few",
            """import numpy as np

def top_p(row, p):
    order = np.argsort(row)[::-1]
    inside = order[np.cumsum(row[order]) <= p]
    if len(inside) == 0:
        inside = order[:1]
    kept = np.zeros_like(row)
    kept[inside] = row[inside]
    return kept / kept.sum()""",
            "You stop before p is reached. The token with which the sum reaches p is kept, too: "
            "together they have at least p.",
        ),
        Wrong(
            "one-too-many",
            """import numpy as np

def top_p(row, p):
    order = np.argsort(row)[::-1]
    inside = order[np.cumsum(row[order]) - row[order] <= p]
    kept = np.zeros_like(row)
    kept[inside] = row[inside]
    return kept / kept.sum()""",
            "Where the likeliest have exactly p you keep one more. At least p is enough: stop once it is reached.",
        ),
        Wrong(
            "never-reached",
            """import numpy as np

def top_p(row, p):
    order = np.argsort(row)[::-1]
    n = np.argmax(np.cumsum(row[order]) >= p) + 1
    kept = np.zeros_like(row)
    kept[order[:n]] = row[order[:n]]
    return kept / kept.sum()""",
            "At p = 1 you keep a single token: rounding leaves the sum at 0.9999999999999999, p is never reached, and "
            "argmax of nothing but False is 0. Ask what those before a token have: less than p keeps it.",
        ),
        Wrong(
            "above-a-bar",
            """import numpy as np

def top_p(row, p):
    kept = np.where(row >= (1 - p) * row.max(), row, 0)
    return kept / kept.sum()""",
            "You keep whatever is above a bar. Top-p looks at the sum of the likeliest, from the top down.",
        ),
        Wrong(
            "not-divided",
            """import numpy as np

def top_p(row, p):
    order = np.argsort(row)[::-1]
    before = np.cumsum(row[order]) - row[order]
    kept = np.zeros_like(row)
    kept[order[before < p]] = row[order[before < p]]
    return kept""",
            "What you keep does not add up to 1. Divide by its sum.",
        ),
        Wrong(
            "in-another-order",
            """import numpy as np

def top_p(row, p):
    ranked = np.sort(row)[::-1]
    before = np.cumsum(ranked) - ranked
    kept = np.where(before < p, ranked, 0)
    return kept / kept.sum()""",
            "Your probabilities come back sorted, so they belong to the wrong tokens. Put each back in its own place.",
        ),
        Wrong(
            "unsorted",
            """import numpy as np

def top_p(row, p):
    before = np.cumsum(row) - row
    kept = np.where(before < p, row, 0)
    return kept / kept.sum()""",
            "You add up in the order of the vocabulary. Begin with the likeliest.",
        ),
    ),
    right=(
        Right(
            "one-by-one",
            """def top_p(row, p):
    kept, total = [0.0] * len(row), 0.0
    for place in sorted(range(len(row)), key=lambda i: -row[i]):
        kept[place] = float(row[place])
        total += float(row[place])
        if total >= p:
            break
    return [value / total for value in kept]""",
        ),
        Right(
            "how-many",
            """import numpy as np

def top_p(row, p):
    order = np.argsort(-row)
    n = min(int(np.searchsorted(np.cumsum(row[order]), p)) + 1, len(row))
    kept = np.zeros(len(row))
    kept[order[:n]] = row[order[:n]] / row[order[:n]].sum()
    return kept""",
        ),
    ),
    hints=(
        "The example with p = 0.75 below the words \"Two knobs\", and the function in the cell below it.",
        "Sort from the likeliest down. A token is kept if those before it have less than p together.",
        "`order = np.argsort(row)[::-1]`",
    ),
)


# --- 6. Perplexity ---

PERPLEXITY = Question(
    id="perplexity",
    title="Per what?",
    points=6,
    part="core",
    teaches="bigram-loss",
    cases=lambda rng: [Read("answer_perplexity")],
    expected=2 ** (0.75 * 4.2),
    accepts=close(5e-3),
    wrong=(
        Wrong(
            "per-byte",
            "answer_perplexity = 2 ** 0.75",
            "This is the perplexity per byte. A token has 4.2 bytes, so it costs 4.2 times as many bits.",
        ),
        Wrong(
            "e",
            "import math\nanswer_perplexity = math.e ** (0.75 * 4.2)",
            "You take a power of e with bits above. The loss in nats goes with e, the loss in bits with 2.",
        ),
        Wrong(
            "divided",
            "answer_perplexity = 2 ** (0.75 / 4.2)",
            "You divide by the bytes of a token. A longer token has more to guess, so its bits are more.",
        ),
        Wrong(
            "outside-the-power",
            "answer_perplexity = 4.2 * 2 ** 0.75",
            "Bits add up from byte to byte, so perplexities multiply: the 4.2 belongs into the exponent.",
        ),
    ),
    hints=(
        "The exercise on perplexity in the chapter does it with other numbers.",
        "First the bits that one token costs, then 2 to that power.",
        "`bits_per_token = 0.75 * 4.2`",
    ),
)


# --- 7. A table that is too large ---

TABLE = Question(
    id="table",
    title="A table that is too large",
    points=6,
    part="stretch",
    teaches="bigram-context",
    cases=lambda rng: [Read("answer_terabytes")],
    expected=32_000.0**3 * 4 / 1e12,
    accepts=close(5e-3),
    wrong=(
        Wrong(
            "one-token-of-context",
            "answer_terabytes = 32_000**2 * 4 / 1e12",
            "This is the bigram's table. Two tokens of context and the next one make three axes.",
        ),
        Wrong(
            "bits",
            "answer_terabytes = 32_000**3 * 4 * 8 / 1e12",
            "You counted bits. A place takes four bytes.",
        ),
        Wrong(
            "gigabytes",
            "answer_terabytes = 32_000**3 * 4 / 1e9",
            "These are gigabytes. A terabyte is 10 to the power of 12 bytes.",
        ),
        Wrong(
            "places",
            "answer_terabytes = 32_000**3 / 1e12",
            "You counted the places. Each of them takes four bytes.",
        ),
    ),
    hints=(
        'The exercise "How many contexts?" at the end of the section on looking further back.',
        "One axis for each token of context and one for the next token; then bytes; then terabytes.",
        "`places = 32_000**3`",
    ),
)


# --- 8. Ask the shorter one ---


def back_off(counts, shorter, k):
    counts, shorter = np.asarray(counts), np.asarray(shorter)
    return (counts + k * shorter) / (counts.sum(axis=1, keepdims=True) + k)


def back_off_cases(rng):
    def counts(rows, V):
        table = rng.integers(0, 6, size=(rows, V)).astype(float)
        table[0] = 0
        return table

    return [
        Call("back_off", counts(6, 4), row_of(rng, 4), float(rng.uniform(2, 6)), label="a context that was never seen"),
        Call("back_off", counts(3, 7), row_of(rng, 7), 0.5, label="a small k"),
    ]


BACK_OFF = Question(
    id="back-off",
    title="Ask the shorter one",
    points=14,
    part="stretch",
    teaches="bigram-context",
    cases=back_off_cases,
    expected=back_off,
    wrong=(
        Wrong(
            "uniform",
            """def back_off(counts, shorter, k):
    V = counts.shape[1]
    return (counts + k / V) / (counts.sum(axis=1, keepdims=True) + k)""",
            "You give the k votes to all tokens alike. They go to the shorter model: each token gets k times its "
            "probability there.",
        ),
        Wrong(
            "too-many-votes",
            """def back_off(counts, shorter, k):
    V = counts.shape[1]
    return (counts + k * shorter) / (counts.sum(axis=1, keepdims=True) + k * V)""",
            "Your rows add up to less than 1. The shorter model has k votes in all, not k for each token: "
            "its probabilities add up to 1.",
        ),
        Wrong(
            "half-and-half",
            """import numpy as np

def back_off(counts, shorter, k):
    total = counts.sum(axis=1, keepdims=True)
    long = counts / np.where(total == 0, 1, total)
    return (long + k * shorter) / (1 + k)""",
            "Every context gets the same say, however often it was seen. Add the k votes to the counts themselves, "
            "so that a context that was seen often outweighs them.",
        ),
        Wrong(
            "only-if-never-seen",
            """import numpy as np

def back_off(counts, shorter, k):
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total == 0, shorter, counts / np.where(total == 0, 1, total))""",
            "You ask the shorter model only where a context was never seen. A token that was never seen after a known "
            "context then has the probability 0: the trap again.",
        ),
    ),
    right=(
        Right(
            "loop",
            """def back_off(counts, shorter, k):
    table = []
    for row in counts:
        total = sum(row) + k
        table.append([(n + k * p) / total for n, p in zip(row, shorter)])
    return table""",
        ),
        Right(
            "weights",
            """import numpy as np

def back_off(counts, shorter, k):
    total = counts.sum(axis=1, keepdims=True)
    trust = total / (total + k)
    long = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    return trust * long + (1 - trust) * shorter""",
        ),
    ),
    hints=(
        'The formula with the words "let it vote" in the section on looking further back.',
        "It is add-k smoothing in which the k is not shared out alike but by the probabilities of the shorter model.",
        "`votes = k * shorter`",
    ),
)


# --- 9. and the growth record ---

TRAP = Question(
    id="trap",
    title="One pair",
    points=6,
    part="core",
    teaches="bigram-smoothing",
    written=True,
    hints=(
        "The two paragraphs below the cell that lists the unseen pairs.",
        "Follow one probability of 0 through the logarithm, the sum and the mean.",
        '"A pair that was never counted has the probability ..."',
    ),
    rubric="2 points: probability 0 has an infinite negative logarithm, and an infinite term makes the mean infinite, "
    "however good the rest. 2: never seen in a finite text does not mean impossible; smoothing gives every pair "
    "something. 2: leaving those pairs out changes the text that is scored, and a model that gives 0 more often "
    "would look better.",
)

RECORD = Question(
    id="growth-record",
    title="Growth record",
    points=10,
    part="record",
    teaches="bigram-record",
    written=True,
    rubric="2 points for each of the five lines that is about something the learner did and holds a number of their "
    "own: the failure, the measurement, the cause, the repair, the same measurement again.",
)

QUESTIONS = [COUNT, SMOOTH, BITS, TEMPERATURE, TOP_P, PERPLEXITY, TABLE, BACK_OFF, TRAP, RECORD]
