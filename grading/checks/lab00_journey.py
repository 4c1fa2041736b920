"""Checks of lab 00, the journey."""

import ast
import csv
import io
import math

from grading.question import Call, Folder, Question, Read, Right, Wrong, close

WRITE_IT = ("minigpt",)  # the finished tools that the lab asks for


# --- 1. What is missing? ---

NEEDED = ("config.json", "model.safetensors", "tokenizer.json")


def missing(folder):
    return [name for name in NEEDED if name not in folder.files]


def missing_cases(rng):
    one = NEEDED[rng.integers(3)]
    others = {name: b"x" for name in NEEDED if name != one}
    whole = {name: b"{}" for name in NEEDED}
    return [
        Call("missing", Folder(others), label="a folder that lacks one file"),
        Call("missing", Folder(whole | {"log.csv": b"step\n"}), label="a folder that is complete"),
        Call("missing", Folder({one: b"x"}), label="a folder that lacks two files"),
        Call("missing", Folder({f"checkpoints/step-{rng.integers(100, 999)}/{name}": b"x" for name in NEEDED}),
             label="files that lie in a checkpoint and not in the folder itself"),
        Call("missing", Folder({f"{name}.partial": b"x" for name in NEEDED}), label="files that are only partial"),
    ]


MISSING = Question(
    id="missing", title="What is missing?", points=10, part="core", teaches="journey-artifacts",
    cases=missing_cases, expected=missing,
    wrong=(
        Wrong("searches-below",
              "def missing(folder):\n"
              "    found = {path.name for path in folder.rglob('*')}\n"
              "    return sorted({'config.json', 'model.safetensors', 'tokenizer.json'} - found)",
              "You also search the folders below. Files in checkpoints/ do not make the folder itself complete: "
              "look at the folder's own files only."),
        Wrong("returns-what-is-there",
              "def missing(folder):\n"
              "    needed = ('config.json', 'model.safetensors', 'tokenizer.json')\n"
              "    return [name for name in needed if (folder / name).is_file()]",
              "You return the files that are there. The question is which ones are not: turn the condition around."),
        Wrong("takes-partial-files",
              "def missing(folder):\n"
              "    names = [path.name for path in folder.iterdir()]\n"
              "    needed = ('config.json', 'model.safetensors', 'tokenizer.json')\n"
              "    return [name for name in needed if not any(found.startswith(name) for found in names)]",
              "A file that ends in .partial counts as present in your answer. It is half a file: "
              "compare the whole name."),
        Wrong("only-the-first",
              "def missing(folder):\n"
              "    for name in ('config.json', 'model.safetensors', 'tokenizer.json'):\n"
              "        if not (folder / name).is_file():\n"
              "            return [name]\n"
              "    return []",
              "You stop at the first file that is missing. Collect all of them, then return the list."),
    ),
    right=(
        Right("sets",
              "def missing(folder):\n"
              "    found = {path.name for path in folder.iterdir() if path.is_file()}\n"
              "    return sorted({'tokenizer.json', 'config.json', 'model.safetensors'} - found)"),
        Right("loop",
              "def missing(folder):\n"
              "    names = []\n"
              "    for name in 'config.json model.safetensors tokenizer.json'.split():\n"
              "        if not Path(folder, name).exists():\n"
              "            names.append(name)\n"
              "    return tuple(names)"),
    ),
    hints=('The section "What is left on the disk?": its first cell lists a folder with `iterdir`, and the sentence '
           "below its table names the three files.",
           "Go through the three names, not through the folder: for each, ask whether the folder has a file of that "
           "name.",
           '`needed = ("config.json", "model.safetensors", "tokenizer.json")`'),
    forbidden=WRITE_IT,
)


# --- 2. Bytes per token ---


def bytes_per_token(texts, token_lists):
    return sum(len(text.encode()) for text in texts) / sum(map(len, token_lists))


def corpus(rng, letters, sizes):
    """Texts of the given sizes, and as many ids for each as a tokenizer might give."""
    texts = ["".join(rng.choice(list(letters), size)) for size in sizes]
    return texts, [rng.integers(512, size=max(1, size // int(rng.integers(1, 4)))).tolist() for size in sizes]


def bytes_cases(rng):
    return [
        Call("bytes_per_token", *corpus(rng, "abc def", (30, 7, 61)), label="plain letters in texts of unequal length"),
        Call("bytes_per_token", *corpus(rng, "猫坐在垫子上", (12, 41)), label="Chinese text"),
        Call("bytes_per_token", *corpus(rng, "naïve café", (50, 9)), label="letters with accents"),
        Call("bytes_per_token", *corpus(rng, "xyz", (40,)), label="a single text"),
    ]


BYTES_PER_TOKEN = Question(
    id="bytes-per-token", title="Bytes per token", points=10, part="core", teaches="journey-tokens",
    cases=bytes_cases, expected=bytes_per_token,
    wrong=(
        Wrong("characters",
              "def bytes_per_token(texts, token_lists):\n"
              "    return sum(map(len, texts)) / sum(map(len, token_lists))",
              "You count characters. A character of Chinese is three bytes: encode the text before you take its "
              "length."),
        Wrong("upside-down",
              "def bytes_per_token(texts, token_lists):\n"
              "    return sum(map(len, token_lists)) / sum(len(text.encode()) for text in texts)",
              "You return tokens per byte. Bytes per token is the other way round: bytes above, tokens below."),
        Wrong("mean-of-ratios",
              "def bytes_per_token(texts, token_lists):\n"
              "    ratios = [len(text.encode()) / len(ids) for text, ids in zip(texts, token_lists)]\n"
              "    return sum(ratios) / len(ratios)",
              "You take the mean of each text's ratio, so a short text counts as much as a long one. "
              "Add up all bytes and all tokens first, and divide once."),
        Wrong("first-text-only",
              "def bytes_per_token(texts, token_lists):\n"
              "    return len(texts[0].encode()) / len(token_lists[0])",
              "You look at the first text only. Add up over all of them."),
    ),
    right=(
        Right("joined",
              "def bytes_per_token(texts, token_lists):\n"
              "    everything = ''.join(texts).encode('utf-8')\n"
              "    return len(everything) / len([i for ids in token_lists for i in ids])"),
        Right("loop",
              "def bytes_per_token(texts, token_lists):\n"
              "    n_bytes = n_tokens = 0\n"
              "    for text, ids in zip(texts, token_lists):\n"
              "        n_bytes += len(bytes(text, 'utf-8'))\n"
              "        n_tokens += len(ids)\n"
              "    return n_bytes / n_tokens"),
    ),
    hints=("The cell that prints bytes and tokens of one line, at the beginning of the section on tokens.",
           "Two sums first, over all texts; then one division.",
           "`n_bytes = sum(len(text.encode()) for text in texts)`"),
    forbidden=WRITE_IT,
)


# --- 3. Bits per byte ---


def bits_per_byte(probabilities, text):
    return -sum(math.log2(p) for p in probabilities) / len(text.encode())


def bits_cases(rng):
    def chances(n):
        return rng.uniform(0.01, 0.99, size=n).tolist()

    return [
        Call("bits_per_byte", chances(9), "a plain text of letters", label="plain letters"),
        Call("bits_per_byte", chances(5), "naïve café 猫", label="characters of several bytes"),
        Call("bits_per_byte", chances(1), "def", label="a single token"),
        Call("bits_per_byte", [1e-30, 1.0, float(rng.uniform(0.1, 0.9))], "x = 1", label="a very unlikely token"),
    ]


def bits_wrong(line):
    return f"def bits_per_byte(probabilities, text):\n    {line}"


BITS_PER_BYTE = Question(
    id="bits-per-byte", title="Bits per byte", points=10, part="core", teaches="journey-measure",
    cases=bits_cases, expected=bits_per_byte,
    wrong=(
        Wrong("nats",
              bits_wrong("return -sum(math.log(p) for p in probabilities) / len(text.encode())"),
              "Your figure is in nats. One bit is ln 2 nats: divide by math.log(2), or take logarithms to the base 2."),
        Wrong("per-token",
              bits_wrong("return -sum(math.log2(p) for p in probabilities) / len(probabilities)"),
              "You divide by the number of tokens. That depends on the tokenizer; divide by the bytes of the text."),
        Wrong("characters",
              bits_wrong("return -sum(math.log2(p) for p in probabilities) / len(text)"),
              "You divide by the number of characters. Some characters are several bytes: encode the text first."),
        Wrong("no-minus",
              bits_wrong("return sum(math.log2(p) for p in probabilities) / len(text.encode())"),
              "Your figure is negative. The loss is the negative logarithm: -ln p."),
        Wrong("mean-loss",
              bits_wrong("return -sum(math.log2(p) for p in probabilities) / len(probabilities) / len(text.encode())"),
              "You take the mean of the losses and divide once more by the bytes. Take their sum."),
    ),
    right=(
        Right("by-the-formula",
              bits_wrong("return -sum(map(math.log, probabilities)) / (math.log(2) * len(text.encode('utf-8')))")),
        Right("loop",
              "def bits_per_byte(probabilities, text):\n"
              "    bits = 0\n"
              "    for p in probabilities:\n"
              "        bits = bits + math.log(1 / p, 2)\n"
              "    return bits / len(bytes(text, 'utf8'))"),
    ),
    hints=('The formula and the example by hand under "How much did it learn?".',
           "Turn each probability into a loss, add them up, change nats into bits, divide by the bytes.",
           "`nats = -sum(math.log(p) for p in probabilities)`"),
    forbidden=WRITE_IT,
)


# --- 4. Does it parse? ---


def parses(text):
    lines = text.split("\n")
    for end in range(1, len(lines)):
        if lines[end].strip() and lines[end][0] not in " \t)":
            break
    else:
        return False
    try:
        ast.parse("\n".join(lines[:end]))
    except SyntaxError:
        return False
    return True


def parses_cases(rng):
    name, number = str(rng.choice(["mean", "read", "close"])), int(rng.integers(2, 99))
    body = f"def {name}(x, n={number}):\n    y = x * n\n\n    return y\n"
    open_bracket = f"def {name}(x, n={number}:\n    return x\n"
    return [
        Call("parses", body + f"\n\n{name}({number})", label="a whole and correct function"),
        Call("parses", body + f"x = = {number}", label="a correct function before a line that is no Python"),
        Call("parses", body, label="a function after which nothing comes"),
        Call("parses", open_bracket + "\nx = 1", label="a function with an open bracket"),
        Call("parses", f"def {name}(x):\n    if x:\n        return {number}\n    \n    return 0\nprint(1)",
             label="a line of spaces inside the function"),
        Call("parses", f"def {name}(x):\n    if x:\n\n        return {number}\n    return 0\nprint(1)",
             label="an empty line inside the function"),
        Call("parses", f"def {name}(\n    x,\n    n={number},\n):\n    return x * n\n\n\nx = 1",
             label="a list of arguments that is closed on a line of its own"),
        Call("parses", f"def {name}(x", label="a text that breaks off in its first line"),
        Call("parses", f"def {name}(x):\n    return y_{number}\n\n\nclass A:", label="a name that does not exist"),
        Call("parses", f"def {name}():\n    pass\n" + open_bracket, label="a broken function after a correct one"),
    ]


FIND_END = '''    lines = text.split("\\n")
    end = None
    for i, line in enumerate(lines[1:], 1):
        if line.strip() and not line.startswith((" ", "\\t", ")")):
            end = i
            break
'''
BRACKET_ENDS = FIND_END.replace(', ")"', "")

PARSES = Question(
    id="parses", title="Does it parse?", points=15, part="core", teaches="journey-write",
    cases=parses_cases, expected=parses,
    wrong=(
        Wrong("whole-text",
              "def parses(text):\n    try:\n        ast.parse(text)\n    except SyntaxError:\n        return False\n"
              "    return True",
              "You parse the whole text. Only the first function counts: cut the text where a line follows that is "
              "not indented, and if there is none, the answer is False."),
        Wrong("broken-off-counts",
              f"def parses(text):\n{FIND_END}"
              "    try:\n        ast.parse('\\n'.join(lines[:end]))\n    except SyntaxError:\n        return False\n"
              "    return True",
              "A function after which nothing comes counts in your answer. It may have broken off: the answer is "
              "False."),
        Wrong("empty-line-ends",
              "def parses(text):\n    lines = text.split('\\n')\n"
              "    for end in range(1, len(lines)):\n"
              "        if not lines[end].startswith((' ', ')')):\n            break\n    else:\n        return False\n"
              "    try:\n        ast.parse('\\n'.join(lines[:end]))\n    except SyntaxError:\n        return False\n"
              "    return True",
              "An empty line ends the function in your answer. Skip lines without any character but spaces."),
        Wrong("bracket-ends",
              f"def parses(text):\n{BRACKET_ENDS}"
              "    if end is None:\n        return False\n"
              "    try:\n        ast.parse('\\n'.join(lines[:end]))\n    except SyntaxError:\n        return False\n"
              "    return True",
              "A line that begins with ) ends the function in your answer. It only closes the list of arguments: go on "
              "to the next line."),
        Wrong("never-parses",
              f"def parses(text):\n{FIND_END}    return end is not None",
              "You find where the function ends and do not ask whether it parses. Give those lines to ast.parse and "
              "return False if it raises SyntaxError."),
        Wrong("last-line-included",
              f"def parses(text):\n{FIND_END}"
              "    if end is None:\n        return False\n"
              "    try:\n        ast.parse('\\n'.join(lines[:end+1]))\n    except SyntaxError:\n        return False\n"
              "    return True",
              "You parse the line that ends the function together with it. That line belongs to what comes next: "
              "leave it out."),
    ),
    right=(
        Right("enumerate",
              f"def parses(text):\n{FIND_END}"
              "    if end is None:\n        return False\n"
              "    try:\n        return ast.parse('\\n'.join(lines[:end])) is not None\n"
              "    except (SyntaxError, ValueError):\n        return False"),
        Right("regular-expression",
              "import re\n\n\ndef parses(text):\n    match = re.search(r'\\n(?=[^\\s)])', text)\n"
              "    if match is None:\n        return False\n"
              "    try:\n        ast.parse(text[:match.start()])\n    except SyntaxError:\n        return False\n"
              "    else:\n        return True"),
        Right("next",
              "def parses(text):\n    first, *rest = text.split('\\n')\n"
              "    end = next((i for i, line in enumerate(rest) if line.strip() and line[0] not in ' \\t)'), None)\n"
              "    if end is None:\n        return False\n"
              "    try:\n        ast.parse('\\n'.join([first, *rest[:end]]))\n        return True\n"
              "    except SyntaxError:\n        return False"),
    ),
    hints=("The rule stands in words below the cell that prints the parse rate.",
           "Two steps: first find the number of the line that ends the function, then try to parse the lines before "
           "it.",
           '`lines = text.split("\\n")`'),
    forbidden=(*WRITE_IT, "exec", "eval"),
)


# --- 5. The best moment of a run ---


def best(folder):
    rows = [row for row in csv.DictReader(io.StringIO(folder.files["log.csv"].decode())) if row["validation_loss"]]
    row = min(rows, key=lambda row: float(row["validation_loss"]))
    return int(row["step"]), float(row["validation_loss"])


def log(rows, columns="step,loss,learning_rate,validation_loss,tokens_per_second"):
    return Folder({"log.csv": (columns + "\n" + "\n".join(rows) + "\n").encode()})


def best_cases(rng):
    every = int(rng.integers(2, 5))
    steps = range(1, 8 * every + 1)
    training = [round(float(x), 4) for x in rng.uniform(1, 6, size=len(steps))]
    training[0] = 0.5  # the lowest training loss is at a step that was not measured
    losses = [round(float(x), 3) for x in rng.uniform(2.5, 9.5, size=8)]
    best_at = int(rng.integers(1, 6))
    losses[best_at] = 2.25

    def rows(values):
        return [f"{step},{training[step - 1]},0.006,{values[step // every - 1] if step % every == 0 else ''},38000"
                for step in steps]

    tie = [3.5, 2.125, 3.5, 2.125, 4.5, 5.5, 6.5, 7.5]
    return [
        Call("best", log(rows(losses)), label="a run whose best moment is not its last"),
        Call("best", log(rows([10.5 + 0.5 * i for i in range(-2, 6)])), label="losses below and above ten"),
        Call("best", log(rows(tie)), label="two steps that are equally good"),
        Call("best", log([f"{every * 100},1.5,0.001,3.25,40000"]), label="a log with one row"),
        Call("best", log([f"0.006,4.125,{every},1.75", f"0.003,3.125,{every * 2},0.75"],
                         "learning_rate,validation_loss,step,loss"), label="columns in another order"),
    ]


BEST = Question(
    id="best", title="The best moment of a run", points=10, part="core", teaches="journey-training",
    cases=best_cases, expected=best,
    wrong=(
        Wrong("last-measured",
              "def best(folder):\n    with open(folder / 'log.csv') as file:\n"
              "        rows = [row for row in csv.DictReader(file) if row['validation_loss']]\n"
              "    return int(rows[-1]['step']), float(rows[-1]['validation_loss'])",
              "You return the last measured step. The best moment may have come before: look for the lowest loss."),
        Wrong("compares-texts",
              "def best(folder):\n    with open(folder / 'log.csv') as file:\n"
              "        rows = [row for row in csv.DictReader(file) if row['validation_loss']]\n"
              "    row = min(rows, key=lambda row: row['validation_loss'])\n"
              "    return int(row['step']), float(row['validation_loss'])",
              "You compare the cells as texts, and the text '10.5' comes before '9.5'. "
              "Turn them into numbers before you compare."),
        Wrong("training-loss",
              "def best(folder):\n    with open(folder / 'log.csv') as file:\n"
              "        row = min(csv.DictReader(file), key=lambda row: float(row['loss']))\n"
              "    return int(row['step']), float(row['loss'])",
              "You look at the training loss. The question is about the validation loss, "
              "which only some rows have."),
        Wrong("later-of-equals",
              "def best(folder):\n    found = None\n    with open(folder / 'log.csv') as file:\n"
              "        for row in csv.DictReader(file):\n            if row['validation_loss']:\n"
              "                pair = int(row['step']), float(row['validation_loss'])\n"
              "                if found is None or pair[1] <= found[1]:\n                    found = pair\n"
              "    return found",
              "If two steps are equally good, you return the later one. Replace the best only if the new one is "
              "strictly better."),
        Wrong("worst",
              "def best(folder):\n    with open(folder / 'log.csv') as file:\n"
              "        rows = [row for row in csv.DictReader(file) if row['validation_loss']]\n"
              "    row = max(rows, key=lambda row: float(row['validation_loss']))\n"
              "    return int(row['step']), float(row['validation_loss'])",
              "You return the highest loss. Lower is better."),
    ),
    right=(
        Right("loop",
              "def best(folder):\n    step, lowest = None, math.inf\n"
              "    with open(folder / 'log.csv', newline='') as file:\n"
              "        for row in csv.DictReader(file):\n            if row['validation_loss'] == '':\n"
              "                continue\n            loss = float(row['validation_loss'])\n"
              "            if loss < lowest:\n                step, lowest = int(row['step']), loss\n"
              "    return [step, lowest]"),
        Right("without-csv",
              "def best(folder):\n    head, *lines = (folder / 'log.csv').read_text().splitlines()\n"
              "    columns = head.split(',')\n    at, value = columns.index('step'), columns.index('validation_loss')\n"
              "    cells = [line.split(',') for line in lines]\n"
              "    loss, step = min((float(row[value]), int(row[at])) for row in cells if row[value])\n"
              "    return step, loss"),
    ),
    hints=("Figure 2 shows the points; the table of artifacts says in which file they are.",
           "What `csv` reads are texts: turn a cell into a number before you compare.",
           '`with open(folder / "log.csv", newline="") as file:`'),
    forbidden=WRITE_IT,
)


# --- 6, 8, 9: numbers ---


def number(variable, value):
    return f"{variable} = {value}"


TOKENS = Question(
    id="tokens", title="How much did it read?", points=5, part="core", teaches="journey-training",
    cases=lambda rng: [Read("answer_tokens")], expected=143_000.0 * 1024 * 2048, accepts=close(1e-3),
    wrong=(
        Wrong("texts", number("answer_tokens", "143_000 * 1024"),
              "This is the number of texts. Each has 2,048 tokens."),
        Wrong("one-text-a-step", number("answer_tokens", "143_000 * 2048"),
              "This counts one text a step. Each step reads a batch of 1,024."),
        Wrong("one-step", number("answer_tokens", "1024 * 2048"),
              "This is what one step reads. The run has 143,000 of them."),
    ),
    hints=('The exercise "What it read" at the end of the section on training.',
           "Tokens in a text, texts in a step, steps in a run.",
           "`answer_tokens = 143_000 * ...`"),
)

FILE_BYTES = Question(
    id="file-bytes", title="How large is the file?", points=10, part="stretch", teaches="journey-artifacts",
    cases=lambda rng: [Read("answer_file_bytes")], expected=2.0 * 1_100_048_384, accepts=close(1e-3),
    wrong=(
        Wrong("four-bytes", number("answer_file_bytes", "1_100_048_384 * 4"),
              "This is four bytes a weight, as in the chapter. Half precision takes half of that."),
        Wrong("bits", number("answer_file_bytes", "1_100_048_384 * 16"),
              "This is the number of bits. The question asks for bytes; a byte has eight bits."),
        Wrong("one-byte", number("answer_file_bytes", "1_100_048_384"),
              "This is one byte a weight. How many bytes had a weight in the chapter, and what is half of it?"),
        Wrong("with-optimizer", number("answer_file_bytes", "1_100_048_384 * 2 * 3"),
              "This counts what the optimizer remembers, too. The file of weights holds weights only."),
    ),
    hints=("The paragraph after the cell that takes one file away.",
           "How many bytes has a weight in the chapter, and how many here?",
           "`answer_file_bytes = 1_100_048_384 * ...`"),
)

SECONDS = 6 * 1.1e9 * 22e9 / 1.5e11

YEARS = Question(
    id="years", title="How many years?", points=10, part="stretch", teaches="journey-artifacts",
    cases=lambda rng: [Read("answer_years")], expected=SECONDS / (365 * 24 * 3600), accepts=close(0.02),
    wrong=(
        Wrong("seconds", number("answer_years", "6 * 1.1e9 * 22e9 / 1.5e11"),
              "This is the number of seconds. Divide by the seconds of a year."),
        Wrong("no-six", number("answer_years", "1.1e9 * 22e9 / 1.5e11 / (365 * 24 * 3600)"),
              "This is one operation for each weight and token. Training takes six."),
        Wrong("two", number("answer_years", "2 * 1.1e9 * 22e9 / 1.5e11 / (365 * 24 * 3600)"),
              "This is two operations for each weight and token, which is reading only. Training takes six."),
        Wrong("days", number("answer_years", "6 * 1.1e9 * 22e9 / 1.5e11 / (24 * 3600)"),
              "This is the number of days. The question asks for years."),
    ),
    hints=("The last code cell of the section on artifacts compares two runs in the same way.",
           "All operations first, then seconds, then years.",
           "`operations = 6 * 1.1e9 * 22e9`"),
)


# --- written ---

BREAKS = Question(
    id="breaks", title="What breaks?", points=10, part="core", teaches="journey-artifacts", written=True,
    rubric="Two points for each person who is right: Ann, too good and unnoticed; Ben, nonsense and unnoticed by his "
           "program; Cem, 900 steps lost, noticed; Dee, cannot be loaded, noticed. "
           "Two more points if effect and notice are kept apart throughout.",
    hints=('The table of artifacts, and the paragraphs that begin with "What breaks".',
           "For each person ask two things: is the result wrong, and does anything say so?",
           '"1. The score of Ann is ..."'),
)

RECORD = Question(
    id="record", title="Growth record", points=10, part="record", teaches="journey-record", written=True,
    rubric="Two points for each: the expectation, the measurement with two numbers, whether it held, a cause, and how "
           "another person could check it.",
)

QUESTIONS = [MISSING, BYTES_PER_TOKEN, BITS_PER_BYTE, PARSES, BEST, TOKENS, BREAKS, FILE_BYTES, YEARS, RECORD]
