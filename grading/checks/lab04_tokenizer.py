"""Checks of lab 04, tokenizer."""

from collections import Counter
from itertools import pairwise

from grading.question import Call, Probe, Question, Read, Right, Wrong, close
from minigpt.tokenizer import Tokenizer

# --- 1. Which pair is next? ---


def best_pair(pieces):
    counts = Counter()
    for tokens, times in pieces:
        for pair in pairwise(tokens):
            counts[pair] += times
    return min(counts, key=lambda pair: (-counts[pair], pair))


def letters_for(rng, pattern):
    """Fresh letters for those of the pattern, in the same alphabetical order, so that ties stay what they are."""
    used = sorted(set("".join(pattern)) - {" "})
    fresh = sorted(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), len(used), replace=False))
    return dict(zip(used, fresh, strict=True))


def pieces_from(rng, *lines):
    """Pieces [(tokens, times), ...] from lines such as ("a b ab", 3), under fresh letters."""
    names = letters_for(rng, [text for text, _ in lines])
    return [([bytes("".join(names[c] for c in token), "ascii") for token in text.split()], times)
            for text, times in lines]


def pair_cases(rng):
    n = int(rng.integers(2, 6))
    return [
        Call("best_pair", pieces_from(rng, ("b c", n), ("c d", n), ("a b", n)), label="a tie of three pairs"),
        Call("best_pair", pieces_from(rng, ("a c", n), ("a b", n), ("b a", 1)), label="a tie with one first token"),
        Call("best_pair", pieces_from(rng, ("a b c", 1), ("a b d", 1), ("c d", n + 3)), label="a frequent piece"),
        Call("best_pair", pieces_from(rng, ("a", n + 2), ("c d", n + 1)), label="neighbors in two pieces"),
        Call("best_pair", pieces_from(rng, ("b b b b", n), ("a c", 2 * n)), label="a letter that repeats"),
        Call("best_pair", pieces_from(rng, ("b ab a", n), ("ab a b", n + 1), ("c d", n)), label="longer tokens"),
    ]


def pair_source(count="times", choose="min(counts, key=lambda pair: (-counts[pair], pair))"):
    """An answer to question 1 with some parts exchanged."""
    return f"""from collections import Counter

def best_pair(pieces):
    counts = Counter()
    for tokens, times in pieces:
        for pair in zip(tokens, tokens[1:]):
            counts[pair] += {count}
    return {choose}"""


PAIR = Question(
    id="pair",
    title="Which pair is next?",
    points=8,
    part="core",
    teaches="tokenizer-merges",
    cases=pair_cases,
    expected=best_pair,
    wrong=(
        Wrong(
            "first-met",
            pair_source(choose="counts.most_common(1)[0][0]"),
            "At a tie you take the pair that was met first, so the answer depends on the order of the text. "
            "The rule asks for the smaller pair.",
        ),
        Wrong(
            "largest",
            pair_source(choose="max(counts, key=lambda pair: (counts[pair], pair))"),
            "At a tie you take the larger pair. `max` with (count, pair) prefers large counts, which is right, "
            "and large pairs, which is not: turn the sign of the count and take `min`.",
        ),
        Wrong(
            "compares-the-first-only",
            pair_source(choose="min(counts, key=lambda pair: (-counts[pair], pair[0]))"),
            "You settle ties by the first token alone. Where it is the same, the second one decides.",
        ),
        Wrong(
            "forgets-the-times",
            pair_source(count="1"),
            "You count each kind of piece once. A piece that occurs five times counts five times.",
        ),
        Wrong(
            "overwrites",
            pair_source().replace("+= times", "= times"),
            "You keep only the last count of a pair. It may stand in several pieces, and twice in one: add them up.",
        ),
        Wrong(
            "crosses-the-border",
            """from collections import Counter

def best_pair(pieces):
    line = [token for tokens, times in pieces for _ in range(times) for token in tokens]
    counts = Counter(zip(line, line[1:]))
    return min(counts, key=lambda pair: (-counts[pair], pair))""",
            "You count pairs across the border of two pieces. Neighbors are counted within a piece only.",
        ),
    ),
    right=(
        Right(
            "loop",
            """def best_pair(pieces):
    best, most = None, 0
    counts = {}
    for tokens, times in pieces:
        for i in range(len(tokens) - 1):
            pair = (tokens[i], tokens[i + 1])
            counts[pair] = counts.get(pair, 0) + times
    for pair in sorted(counts):
        if counts[pair] > most:
            best, most = pair, counts[pair]
    return best""",
        ),
        Right(
            "sorted",
            """from collections import defaultdict

def best_pair(pieces):
    counts = defaultdict(int)
    for tokens, times in pieces:
        for left, right in zip(tokens[:-1], tokens[1:]):
            counts[left, right] += times
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[0][0]""",
        ),
    ),
    hints=(
        "`pair_counts` and the line with `min` in `train`, in the section on merges.",
        "First a dictionary from pairs to counts, then the pair for which (minus the count, the pair) is smallest.",
        "`counts = Counter()`",
    ),
)


# --- 2. One merge ---


def merge(tokens, pair):
    merged, i = [], 0
    while i < len(tokens):
        here = tuple(tokens[i : i + 2]) == tuple(pair)
        merged.append(pair[0] + pair[1] if here else tokens[i])
        i += 2 if here else 1
    return merged


def merge_cases(rng):
    def case(text, left, right, label):
        names = letters_for(rng, [text, left, right])
        fresh = [bytes("".join(names[c] for c in token), "ascii") for token in (*text.split(), left, right)]
        return Call("merge", fresh[:-2], (fresh[-2], fresh[-1]), label=label)

    return [
        case("c a b a d a b", "a", "b", "a pair that occurs twice"),
        case("a a a", "a", "a", "three equal tokens in a row"),
        case("b a a a a a", "a", "a", "five equal tokens in a row"),
        case("ab c a bc", "a", "bc", "the same letters, cut elsewhere"),
        case("b a c b", "a", "b", "a pair that does not occur"),
    ]


MERGE = Question(
    id="merge",
    title="One merge",
    points=8,
    part="core",
    teaches="tokenizer-merges",
    cases=merge_cases,
    expected=merge,
    wrong=(
        Wrong(
            "overlaps",
            """def merge(tokens, pair):
    merged = []
    for i, token in enumerate(tokens):
        if tuple(tokens[i:i + 2]) == tuple(pair):
            merged.append(pair[0] + pair[1])
        elif i == 0 or tuple(tokens[i - 1:i + 1]) != tuple(pair):
            merged.append(token)
    return merged""",
            "In a run of equal tokens you use a token twice, so the text gets longer than it was. "
            "After a merge go on behind both tokens.",
        ),
        Wrong(
            "from-the-right",
            """def merge(tokens, pair):
    merged, i = [], len(tokens) - 1
    while i >= 0:
        here = i > 0 and tuple(tokens[i - 1:i + 1]) == tuple(pair)
        merged.insert(0, pair[0] + pair[1] if here else tokens[i])
        i -= 2 if here else 1
    return merged""",
            "In a run of equal tokens you begin at the right end. The rule is from left to right: a a a becomes aa a.",
        ),
        Wrong(
            "first-only",
            """def merge(tokens, pair):
    for i in range(len(tokens) - 1):
        if tuple(tokens[i:i + 2]) == tuple(pair):
            return [*tokens[:i], pair[0] + pair[1], *tokens[i + 2:]]
    return list(tokens)""",
            "You merge the first place and stop. The pair is replaced everywhere.",
        ),
        Wrong(
            "drops-the-last",
            """def merge(tokens, pair):
    merged, i = [], 0
    while i < len(tokens) - 1:
        here = tuple(tokens[i:i + 2]) == tuple(pair)
        merged.append(pair[0] + pair[1] if here else tokens[i])
        i += 2 if here else 1
    return merged""",
            "The last token is lost when it is part of no pair: your loop ends one place too early.",
        ),
        Wrong(
            "keeps-the-last",
            """def merge(tokens, pair):
    merged, i = [], 0
    while i < len(tokens) - 1:
        here = tuple(tokens[i:i + 2]) == tuple(pair)
        merged.append(pair[0] + pair[1] if here else tokens[i])
        i += 2 if here else 1
    return [*merged, tokens[-1]]""",
            "You add the last token in every case. When the pair stands at the end, a merge has used it up already.",
        ),
        Wrong(
            "looks-at-the-letters",
            """def merge(tokens, pair):
    merged, i = [], 0
    while i < len(tokens):
        here = b"".join(tokens[i:i + 2]) == pair[0] + pair[1]
        merged.append(pair[0] + pair[1] if here else tokens[i])
        i += 2 if here else 1
    return merged""",
            "You compare the letters and not the two tokens: `ab c` and `a bc` read the same and are different pairs.",
        ),
    ),
    right=(
        Right(
            "in-place",
            """def merge(tokens, pair):
    tokens = list(tokens)
    i = 0
    while i < len(tokens) - 1:
        if tokens[i] == pair[0] and tokens[i + 1] == pair[1]:
            tokens[i:i + 2] = [tokens[i] + tokens[i + 1]]
        i += 1
    return tokens""",
        ),
        Right(
            "queue",
            """def merge(tokens, pair):
    waiting, merged = list(tokens)[::-1], []
    while waiting:
        token = waiting.pop()
        if waiting and (token, waiting[-1]) == tuple(pair):
            token += waiting.pop()
        merged.append(token)
    return merged""",
        ),
    ),
    hints=(
        "`merge` in the section on merges, and what it does to `aaa`.",
        "Walk with a place i: where the pair stands, add the joined token and go on by two, else by one.",
        "`merged, i = [], 0`",
    ),
)


# --- 3. Training ---


def train(pieces, n_merges):
    merges = []
    for _ in range(n_merges):
        pair = best_pair(pieces)
        merges.append(pair)
        pieces = [(merge(tokens, pair), times) for tokens, times in pieces]
    return merges


PARTS = '''
from collections import Counter

def best_pair(pieces):
    counts = Counter()
    for tokens, times in pieces:
        for pair in zip(tokens, tokens[1:]):
            counts[pair] += times
    return min(counts, key=lambda pair: (-counts[pair], pair))

def merge(tokens, pair):
    merged, i = [], 0
    while i < len(tokens):
        here = tuple(tokens[i:i + 2]) == tuple(pair)
        merged.append(pair[0] + pair[1] if here else tokens[i])
        i += 2 if here else 1
    return merged
'''
"""What questions 3 and 4 build on: right ones, whatever the answers to questions 1 and 2 were."""


def on_parts(name, arguments):
    """Code that calls the student's function where `best_pair` and `merge` are those of `PARTS`."""
    return f"""{PARTS}
from types import FunctionType

{name} = FunctionType({name}.__code__, globals(), "{name}", {name}.__defaults__, {name}.__closure__)
answer = {name}({arguments})
"""


def train_cases(rng):
    def case(n_merges, label, *lines):
        pieces = pieces_from(rng, *lines)
        inputs = {"pieces": pieces, "n_merges": n_merges}
        return Probe(on_parts("train", "pieces, n_merges"), inputs, label=label)

    return [
        case(3, "three merges that build on each other", ("b a n a n a", 1), ("b a n d a n a", 1)),
        case(4, "pieces that occur several times", ("l o w", 5), ("l o w e r", 2), ("n e w e s t", 6), ("w i d", 3)),
        case(2, "equal tokens in a row", ("a a a a", 3), ("a a a b", 1)),
        case(1, "a single merge", ("c a b", 2), ("a b", 1)),
    ]


TRAIN = Question(
    id="train",
    title="The training loop",
    points=12,
    part="core",
    teaches="tokenizer-merges",
    cases=train_cases,
    expected=train,
    wrong=(
        Wrong(
            "counts-once",
            """from collections import Counter

def train(pieces, n_merges):
    counts = Counter()
    for tokens, times in pieces:
        for pair in zip(tokens, tokens[1:]):
            counts[pair] += times
    return sorted(counts, key=lambda pair: (-counts[pair], pair))[:n_merges]""",
            "You count once, at the beginning, and take the best pairs of that count. "
            "After every merge the text is another one, with new tokens and new pairs: count again.",
        ),
        Wrong(
            "forgets-to-merge",
            """def train(pieces, n_merges):
    return [best_pair(pieces) for _ in range(n_merges)]""",
            "Every one of your merges is the same pair: the pieces have to be merged before the next count.",
        ),
        Wrong(
            "merges-one-piece",
            """def train(pieces, n_merges):
    pieces, merges = list(pieces), []
    for _ in range(n_merges):
        pair = best_pair(pieces)
        merges.append(pair)
        pieces[0] = (merge(pieces[0][0], pair), pieces[0][1])
    return merges""",
            "You merge in the first piece only. A merge holds in all of them.",
        ),
        Wrong(
            "loses-the-times",
            """def train(pieces, n_merges):
    merges = []
    for _ in range(n_merges):
        pair = best_pair(pieces)
        merges.append(pair)
        pieces = [(merge(tokens, pair), 1) for tokens, times in pieces]
    return merges""",
            "After the first merge every piece counts once: carry along how often it occurs.",
        ),
        Wrong(
            "joined-tokens",
            """def train(pieces, n_merges):
    merges = []
    for _ in range(n_merges):
        pair = best_pair(pieces)
        merges.append(pair[0] + pair[1])
        pieces = [(merge(tokens, pair), times) for tokens, times in pieces]
    return merges""",
            "You return the joined tokens. A merge is the pair: `a` and `bc` is another merge than `ab` and `c`.",
        ),
    ),
    right=(
        Right(
            "recursion",
            """def train(pieces, n_merges):
    if n_merges == 0:
        return []
    pair = best_pair(pieces)
    return [pair, *train([(merge(tokens, pair), times) for tokens, times in pieces], n_merges - 1)]""",
        ),
        Right(
            "on-broken-parts",  # of which questions 1 and 2 have taken their points already
            """def train(pieces, n_merges):
    merges = []
    for _ in range(n_merges):
        merges.append(best_pair(pieces))
        pieces = [(merge(tokens, merges[-1]), times) for tokens, times in pieces]
    return merges

def best_pair(pieces):
    return max((tokens[0], tokens[1]) for tokens, _ in pieces)

def merge(tokens, pair):
    return list(tokens)""",
        ),
        Right(
            "all-in-one",
            """from collections import Counter

def train(pieces, n_merges):
    words = [list(tokens) for tokens, _ in pieces]
    merges = []
    while len(merges) < n_merges:
        counts = Counter()
        for word, (_, times) in zip(words, pieces):
            for i in range(len(word) - 1):
                counts[word[i], word[i + 1]] += times
        most = max(counts.values())
        left, right = min(pair for pair in counts if counts[pair] == most)
        merges.append((left, right))
        for word in words:
            i = 0
            while i < len(word) - 1:
                if word[i] == left and word[i + 1] == right:
                    word[i:i + 2] = [left + right]
                i += 1
    return merges""",
        ),
    ),
    hints=(
        "The loop of `train` in the section on merges: four lines, once for every merge.",
        "Find the best pair, remember it, merge it in every piece, and let the next round see the new pieces.",
        "`merges = []`",
    ),
)


# --- 4. Encoding ---


def encode(data, merges):
    rank = {tuple(pair): n for n, pair in enumerate(merges)}
    tokens = [data[i : i + 1] for i in range(len(data))]
    while pairs := [pair for pair in pairwise(tokens) if pair in rank]:
        tokens = merge(tokens, min(pairs, key=rank.get))
    return tokens


def encode_cases(rng):
    def case(label, data, *merges):
        names = letters_for(rng, [data, *merges])
        fresh = {text: bytes("".join(names[c] for c in text), "ascii") for pair in merges for text in pair.split()}
        pairs = [tuple(fresh[text] for text in pair.split()) for pair in merges]
        inputs = {"data": bytes("".join(names[c] for c in data), "ascii"), "merges": pairs}
        return Probe(on_parts("encode", "data, merges"), inputs, label=label)

    fruit = ("a n", "b an", "an a")
    noise = {"data": rng.bytes(12), "merges": [(b"a", b"n"), (b"b", b"an")]}
    return [
        case("a merge that waits for an earlier one elsewhere", "anana", *fruit),
        case("a long token that no left-to-right walk finds", "abc", "b c", "a bc", "a b"),
        case("two tokens that want the same letter", "abcd", "c d", "b cd", "a b"),
        case("a piece without any merge", "dab", *fruit),
        Probe(on_parts("encode", "data, merges"), noise, label="bytes that are no text"),
    ]


ENCODE = Question(
    id="encode",
    title="Encode by rank",
    points=12,
    part="core",
    teaches="tokenizer-encode",
    cases=encode_cases,
    expected=encode,
    wrong=(
        Wrong(
            "longest-first",
            """def encode(data, merges):
    table = {bytes([byte]) for byte in range(256)} | {left + right for left, right in merges}
    tokens = []
    while data:
        longest = max((token for token in table if data.startswith(token)), key=len)
        tokens.append(longest)
        data = data[len(longest):]
    return tokens""",
            "You cut off the longest entry that fits, from left to right. The text comes back, but as other tokens "
            "than those the model has learned: replay the merges in their order.",
        ),
        Wrong(
            "leftmost-pair",
            """def encode(data, merges):
    tokens = [data[i:i + 1] for i in range(len(data))]
    i = 0
    while i < len(tokens) - 1:
        if (tokens[i], tokens[i + 1]) in [tuple(pair) for pair in merges]:
            tokens[i:i + 2] = [tokens[i] + tokens[i + 1]]
            i = 0
        else:
            i += 1
    return tokens""",
            "You merge the pair farthest to the left. The pair whose merge was learned first comes first, "
            "wherever it stands.",
        ),
        Wrong(
            "latest-first",
            """def encode(data, merges):
    rank = {tuple(pair): n for n, pair in enumerate(merges)}
    tokens = [data[i:i + 1] for i in range(len(data))]
    while pairs := [pair for pair in zip(tokens, tokens[1:]) if pair in rank]:
        tokens = merge(tokens, max(pairs, key=rank.get))
    return tokens""",
            "Of several possible merges you take the one that was learned last. The first one has priority.",
        ),
        Wrong(
            "one-merge",
            """def encode(data, merges):
    rank = {tuple(pair): n for n, pair in enumerate(merges)}
    tokens = [data[i:i + 1] for i in range(len(data))]
    pairs = [pair for pair in zip(tokens, tokens[1:]) if pair in rank]
    return merge(tokens, min(pairs, key=rank.get)) if pairs else tokens""",
            "You make one merge and stop. A merge makes new pairs: go on until none of them is in the list.",
        ),
    ),
    right=(
        Right(
            "replay",
            """def encode(data, merges):
    tokens = [bytes([byte]) for byte in data]
    for pair in merges:
        tokens = merge(tokens, pair)
    return tokens""",
        ),
        Right(
            "on-a-broken-part",  # of which question 2 has taken its points already
            """def encode(data, merges):
    tokens = [data[i:i + 1] for i in range(len(data))]
    for pair in merges:
        tokens = merge(tokens, pair)
    return tokens

def merge(tokens, pair):
    return list(tokens)""",
        ),
        Right(
            "own-loop",
            """def encode(data, merges):
    tokens = [data[i:i + 1] for i in range(len(data))]
    order = [tuple(pair) for pair in merges]
    while True:
        ranks = [order.index(pair) if pair in order else len(order) for pair in zip(tokens, tokens[1:])]
        if not ranks or min(ranks) == len(order):
            return tokens
        i = ranks.index(min(ranks))
        tokens = tokens[:i] + [tokens[i] + tokens[i + 1]] + tokens[i + 2:]""",
        ),
    ),
    hints=(
        "`encode_piece` in the section on encoding, and `anana` by hand above it.",
        "Of the pairs that stand side by side, which has the earliest place in the list? Merge it, and look again.",
        "`tokens = [data[i:i + 1] for i in range(len(data))]`",
    ),
)


# --- 5. Characters last ---


def text_of(ids, table):
    return b"".join(table[id] for id in ids).decode("utf-8", errors="replace")


def table_with(*extra):
    """Id 0 ends a text, id b + 1 is the byte b, then some longer tokens."""
    return [b"", *(bytes([byte]) for byte in range(256)), *extra]


def text_cases(rng):
    word = "".join(rng.choice(list("abcdefgh"), 4))
    dot, ring = rng.choice(list("äéîõüçñ"), 2, replace=False)
    many = rng.choice(list("中文字林山"))
    singles = [byte + 1 for byte in f"{word}{dot}{many}{ring}".encode()]
    cut = many.encode()
    table = table_with(word.encode() + cut[:1], cut[1:] + word.encode(), cut[:2])
    return [
        Call("text_of", singles, table, label="characters of several bytes, one id a byte"),
        Call("text_of", [257, 258], table, label="a character that is cut between two tokens"),
        Call("text_of", [*singles, 259], table, label="a character that is broken off at the end"),
        Call("text_of", [259, *singles[:4]], table, label="a broken character, and text behind it"),
        Call("text_of", [*singles[:4], 0, *singles[:2]], table, label="the end of a text in the middle"),
        Call("text_of", [], table, label="no ids at all"),
    ]


TEXT = Question(
    id="text",
    title="Characters last",
    points=8,
    part="core",
    teaches="tokenizer-bytes",
    cases=text_cases,
    expected=text_of,
    wrong=(
        Wrong(
            "token-by-token",
            """def text_of(ids, table):
    return "".join(table[id].decode("utf-8", errors="replace") for id in ids)""",
            "You turn each token into characters by itself, so a character that is cut between two tokens breaks. "
            "Join all bytes first.",
        ),
        Wrong(
            "drops-what-is-broken",
            """def text_of(ids, table):
    return b"".join(table[id] for id in ids).decode("utf-8", errors="ignore")""",
            "Broken bytes vanish in your text. A reader has to see that something is missing: U+FFFD says so.",
        ),
        Wrong(
            "ends-at-the-break",
            """def text_of(ids, table):
    data = b"".join(table[id] for id in ids)
    try:
        return data.decode()
    except UnicodeDecodeError as broken:
        return data[:broken.start].decode() + "\\ufffd\"""",
            "Your text ends at the first broken byte. What comes behind it is text: `errors=\"replace\"` goes on.",
        ),
        Wrong(
            "a-character-a-byte",
            """def text_of(ids, table):
    return b"".join(table[id] for id in ids).decode("latin-1")""",
            "You make one character of each byte. Then é shows as two strange letters: decode the bytes as UTF-8.",
        ),
        Wrong(
            "stops-at-the-end",
            """def text_of(ids, table):
    ids = ids[:ids.index(0)] if 0 in ids else ids
    return b"".join(table[id] for id in ids).decode("utf-8", errors="replace")""",
            "You stop at the first id 0. It stands for no bytes, and what comes after it belongs to the text.",
        ),
    ),
    right=(
        Right(
            "bytearray",
            """def text_of(ids, table):
    data = bytearray()
    for id in ids:
        data += table[id]
    return str(bytes(data), "utf-8", "replace")""",
        ),
        Right(
            "incremental-decoder",
            """import codecs

def text_of(ids, table):
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return "".join(decoder.decode(table[id]) for id in ids) + decoder.decode(b"", final=True)""",
        ),
    ),
    hints=(
        "`decode` in the section on encoding, and what happened to half of 中.",
        "First all bytes of all ids in one row, then characters, with U+FFFD for what is none.",
        '`data = b"".join(table[id] for id in ids)`',
    ),
)


# --- 6. Somebody types a special token ---

LESSON = "a seed falls to the ground and a new plant grows from the seed. " * 3
TOKENIZER = Tokenizer.train([LESSON], 290)


def pack(documents):
    return [id for document in documents for id in [*TOKENIZER.encode(document), TOKENIZER.end_of_text]]


def pack_cases(rng):
    words = rng.permutation(["a seed", "the plant", "ground", "new grows", "falls", "from"])
    return [
        Call("pack", [f"{words[0]}<|endoftext|>{words[1]}", words[2]], label="a document that holds the name"),
        Call("pack", [words[3], words[4], words[5]], label="three documents"),
        Call("pack", [f"{words[0]}", f"{words[0][-1]} {words[1]}"], label="documents whose border looks like a word"),
        Call("pack", ["<|endoftext|>"], label="a document that is only the name"),
        Call("pack", [words[1], "", words[2]], label="an empty document"),
    ]


PACK = Question(
    id="pack",
    title="Somebody types a special token",
    points=8,
    part="core",
    teaches="tokenizer-special",
    cases=pack_cases,
    expected=pack,
    wrong=(
        Wrong(
            "types-the-name-itself",
            """def pack(documents):
    return tokenizer.encode("".join(document + "<|endoftext|>" for document in documents))""",
            "You write the name of the token into the text. Our tokenizer takes it for text, as it should, "
            "so no id 0 comes out: append the number.",
        ),
        Wrong(
            "trusts-the-text",
            """def pack(documents):
    trusting = Tokenizer.from_text(tokenizer.engine.to_str())
    trusting.engine.encode_special_tokens = False
    return trusting.encode("".join(document + "<|endoftext|>" for document in documents))""",
            "You let names in the text become special tokens. Then everybody who types the name ends a document: "
            "encode each document as text and append the number.",
        ),
        Wrong(
            "deletes-the-name",
            """def pack(documents):
    cleaned = [document.replace("<|endoftext|>", "") for document in documents]
    return [id for text in cleaned for id in [*tokenizer.encode(text), tokenizer.end_of_text]]""",
            "You delete the name from the documents, so what the user wrote does not come back. "
            "`tokenizer.encode` keeps it as text, and that is harmless.",
        ),
        Wrong(
            "between-only",
            """def pack(documents):
    ids = []
    for document in documents:
        ids += [tokenizer.end_of_text] * bool(ids) + tokenizer.encode(document)
    return ids""",
            "The end stands between your documents and not behind the last one. Every document ends.",
        ),
        Wrong(
            "no-end",
            """def pack(documents):
    return [id for document in documents for id in tokenizer.encode(document)]""",
            "Nothing says where a document ends. Append `tokenizer.end_of_text` after each.",
        ),
    ),
    right=(
        Right(
            "loop",
            """def pack(documents):
    ids = []
    for document in documents:
        ids.extend(tokenizer.encode(document))
        ids.append(tokenizer.end_of_text)
    return ids""",
        ),
        Right(
            "arrays",
            """def pack(documents):
    end = np.array([tokenizer.end_of_text], dtype=int)
    parts = [np.array(ids, dtype=int) for ids in tokenizer.encode_many(documents)]
    return np.concatenate([part for ids in parts for part in (ids, end)])""",
        ),
    ),
    hints=(
        "The two lines of output in the section on special tokens, and the paragraph below them.",
        "Which function makes ids that no user can turn into 0, and who may write the 0?",
        "`ids = []`",
    ),
)


# --- 7. The bill ---

BILL = Question(
    id="bill",
    title="The bill",
    points=6,
    part="core",
    teaches="tokenizer-languages",
    cases=lambda rng: [Read("answer_times")],
    expected=(3000 / 4.0 + 2400 / 1.2) / (3000 / 3.6 + 2400 / 3.0),
    accepts=close(5e-3),
    wrong=(
        Wrong(
            "mean-of-the-rates",
            "answer_times = ((3.6 + 3.0) / 2) / ((4.0 + 1.2) / 2)",
            "You average the rates. Pages cost tokens, not rates: count the tokens of both pages before and after.",
        ),
        Wrong(
            "chinese-only",
            "answer_times = (2400 / 1.2) / (2400 / 3.0)",
            "This is the saving on the Chinese pages alone. Half of the pages are English, and get dearer.",
        ),
        Wrong(
            "upside-down",
            "answer_times = (3000 / 3.6 + 2400 / 3.0) / (3000 / 4.0 + 2400 / 1.2)",
            "This is new divided by old. Asked for is how many times as many tokens the old tokenizer needs.",
        ),
        Wrong(
            "same-bytes",
            "answer_times = (3000 / 4.0 + 3000 / 1.2) / (3000 / 3.6 + 3000 / 3.0)",
            "You give a Chinese page as many bytes as an English one. It says the same in 2,400.",
        ),
        Wrong(
            "multiplied",
            "answer_times = (3000 * 4.0 + 2400 * 1.2) / (3000 * 3.6 + 2400 * 3.0)",
            "You multiply bytes by bytes per token. The number of tokens is bytes divided by bytes per token.",
        ),
    ),
    hints=(
        "The last exercise of the section on languages.",
        "Tokens of one English and one Chinese page together, with each tokenizer.",
        "`old = 3000 / 4.0 + 2400 / 1.2`",
    ),
)


# --- 8. What a vocabulary weighs ---

WEIGHT = Question(
    id="weight",
    title="What a vocabulary weighs",
    points=6,
    part="stretch",
    teaches="tokenizer-vocabulary",
    cases=lambda rng: [Read("answer_bytes")],
    expected=2 * (128_000 - 32_000) * 2048 * 4,
    wrong=(
        Wrong(
            "one-table",
            "answer_bytes = (128_000 - 32_000) * 2048 * 4",
            "You count one table. This model has two of that size, one at its beginning and one at its end.",
        ),
        Wrong(
            "numbers-for-bytes",
            "answer_bytes = 2 * (128_000 - 32_000) * 2048",
            "This is the count of the numbers. Each of them takes 4 bytes.",
        ),
        Wrong(
            "the-whole-table",
            "answer_bytes = 2 * 128_000 * 2048 * 4",
            "This is what the new tables weigh. Asked for is how much more than the old ones.",
        ),
        Wrong(
            "bits",
            "answer_bytes = 2 * (128_000 - 32_000) * 2048 * 32",
            "You give the answer in bits. Four bytes are 32 bits, and asked for are bytes.",
        ),
    ),
    hints=(
        "The first paragraph of the section on what a vocabulary costs, and its exercise.",
        "Additional rows, times the numbers in a row, times the tables, times the bytes of a number.",
        "`rows = 128_000 - 32_000`",
    ),
)


# --- 9. Show it at once ---


def stream(tokens):
    shown, waiting = [], b""
    for token in tokens:
        waiting += token
        for end in range(len(waiting), -1, -1):
            try:
                text = waiting[:end].decode()
                break
            except UnicodeDecodeError:
                continue
        shown.append(text)
        waiting = waiting[end:]
    return shown


def cut_up(data, places):
    edges = [0, *places, len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def stream_cases(rng):
    word = "".join(rng.choice(list("abcdefgh"), 3))
    accent, character, face = rng.choice(list("äéîõü")), rng.choice(list("中文字林山")), rng.choice(list("🙂🌱🌍"))
    mixed = f"{word}{accent}{word}{character}{face}{word}".encode()
    return [
        Call("stream", cut_up(mixed, range(1, len(mixed))), label="one byte at a time"),
        Call("stream", cut_up(f"{word}{character}{word}".encode(), [4]), label="a character cut between two tokens"),
        Call("stream", cut_up(f"{face}{word}".encode(), [1, 3]), label="a character of four bytes in three tokens"),
        Call("stream", [word.encode(), accent.encode(), character.encode()], label="tokens of whole characters"),
        Call("stream", cut_up(f"{character}{accent}".encode(), [4]), label="an end and a beginning in one token"),
    ]


STREAM = Question(
    id="stream",
    title="Show it at once",
    points=14,
    part="stretch",
    teaches="tokenizer-encode",
    cases=stream_cases,
    expected=stream,
    wrong=(
        Wrong(
            "token-by-token",
            """def stream(tokens):
    return [token.decode("utf-8", errors="replace") for token in tokens]""",
            "You show each token by itself, so characters that are cut between tokens flicker as U+FFFD. "
            "Hold their bytes back until the rest has come.",
        ),
        Wrong(
            "throws-away",
            """def stream(tokens):
    return [token.decode("utf-8", errors="ignore") for token in tokens]""",
            "Bytes of characters that are cut between tokens are lost in your text. Keep them for the next token.",
        ),
        Wrong(
            "all-or-nothing",
            """def stream(tokens):
    shown, waiting = [], b""
    for token in tokens:
        waiting += token
        try:
            shown.append(waiting.decode())
            waiting = b""
        except UnicodeDecodeError:
            shown.append("")
    return shown""",
            "When a token ends in the middle of a character you hold back all of it. "
            "What is complete before that can be shown at once.",
        ),
        Wrong(
            "characters-for-bytes",
            """def stream(tokens):
    shown, waiting = [], b""
    for token in tokens:
        waiting += token
        text = waiting.decode("utf-8", errors="ignore")
        shown.append(text)
        waiting = waiting[len(text):]
    return shown""",
            "You cut as many bytes off what waits as you have shown characters. "
            "A character may have four bytes: count bytes.",
        ),
        Wrong(
            "everything-so-far",
            """def stream(tokens):
    shown, data = [], b""
    for token in tokens:
        data += token
        end = len(data)
        while True:
            try:
                shown.append(data[:end].decode())
                break
            except UnicodeDecodeError:
                end -= 1
    return shown""",
            "You show all the text again after every token. Asked for is what is new.",
        ),
    ),
    right=(
        Right(
            "first-byte-tells",
            """def stream(tokens):
    shown, waiting = [], b""
    for token in tokens:
        waiting += token
        text = ""
        while waiting:
            first = waiting[0]
            need = 1 if first < 128 else 2 if first < 224 else 3 if first < 240 else 4
            if len(waiting) < need:
                break
            text += waiting[:need].decode()
            waiting = waiting[need:]
        shown.append(text)
    return shown""",
        ),
        Right(
            "difference",
            """def stream(tokens):
    texts = [""]
    for n in range(1, len(tokens) + 1):
        texts.append(b"".join(tokens[:n]).decode("utf-8", errors="ignore"))
    return [after[len(before):] for before, after in zip(texts, texts[1:])]""",
        ),
    ),
    forbidden=("codecs", "io"),
    hints=(
        "Figure 1: the first byte of a character says how many follow.",
        "Keep what is waiting; after each token show the longest beginning that decodes, and keep the rest.",
        '`shown, waiting = [], b""`',
    ),
)


# --- 10. and the growth record ---

ADVICE = Question(
    id="advice",
    title="A vocabulary for a small archive",
    points=8,
    part="core",
    teaches="tokenizer-vocabulary",
    written=True,
    hints=(
        "Figure 4 of the chapter, and the last column of the table above it.",
        "Which row is a saving, which is a score, and where does the score turn?",
        '"Tokens per page fall to the end, but ..."',
    ),
    rubric="2 points: tokens per page fall while bits per byte turn at 2,000, so fewer tokens is not a better model. "
    "2: why: with more entries each has fewer occurrences, and more pairs were never seen. 2: a choice between 500 and "
    "2,000 with its reason. 2: what would change it (more text, or merges learned from both languages), and a sentence "
    "on what the other language pays.",
)

RECORD = Question(
    id="growth-record",
    title="Growth record",
    points=10,
    part="record",
    teaches="tokenizer-record",
    written=True,
    rubric="2 points for each of the five lines that is about something the learner did: the failure, the measurement "
    "and the same measurement again with a number of their own, the cause with the rule or formula that predicts it, "
    "the repair with the change.",
)

QUESTIONS = [PAIR, MERGE, TRAIN, ENCODE, TEXT, PACK, BILL, WEIGHT, STREAM, ADVICE, RECORD]
