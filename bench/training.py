"""Training speed of minigpt beside `transformers` and litgpt: tokens per second, memory, share of the processor.

    python bench/training.py                                       all of it; writes bench/training.json
    python bench/training.py --size 10m --family neox --rounds 5   one part of it
    python bench/training.py --rungs                               what each choice in minigpt brings, by itself

All contestants of a part train the same shape from the same weights on the same tokens, each in a process of its
own, a few steps at a time in turn, so that a busy minute hits them all. A part that bench/training.json has from this
very code is not measured again unless --again is given, so a stopped measurement goes on where it was.
"""

import argparse
import dataclasses
import datetime
import hashlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peers
import torch
from safetensors.torch import save_file

from minigpt import huggingface
from minigpt.config import ModelConfig
from minigpt.disk import write_text
from minigpt.evaluate.report import machine
from minigpt.journey import code_fingerprint
from minigpt.model import GPT

HERE = Path(__file__).resolve().parent
RESULT = HERE / "training.json"
LEARNING_RATE = 1e-3
BANDS = {"32-true": 2e-3, "bf16-mixed": 6e-2}
"""How far, in nats, a loss may lie from that of the reference at any step: more, and it is other training.

Two trainings that round differently drift apart; measured over 22 steps: up to 0.035 between float32 and bf16.
"""
KINDS = {"32-true": "float32", "bf16-mixed": "bf16"}
WARM_UP = 5
"""Steps before the first that counts: so many until an allocator that keeps memory has all that it needs."""

SIZES = {"10m": {"vocab_size": 8192, "n_layers": 4, "d_model": 320, "n_heads": 5, "max_seq_len": 256},
         "50m": {"vocab_size": 32_000, "n_layers": 6, "d_model": 512, "n_heads": 8, "max_seq_len": 512},
         "tiny": {"vocab_size": 128, "n_layers": 2, "d_model": 32, "n_heads": 2, "max_seq_len": 32}}
BATCH = {"10m": 8, "50m": 4, "tiny": 2}
PIECES, CHUNK = {"model": {"attention_pieces": 2}}, {"train": {"loss_chunk": 512}}
FAST = PIECES | CHUNK
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""Has torch put large tensors into memory pages of 2 MB; off unless a contestant says otherwise."""
GIVES_BACK = "GIVE_MEMORY_BACK"
"""Keeps minigpt's training from keeping freed memory; a contestant alone reads it."""
KEEPS = {"MALLOC_MMAP_THRESHOLD_": str(128 << 20), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
"""Lets a peer's process keep freed memory as minigpt's training does by itself, on Linux with glibc."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One trainer with one setting."""

    engine: str
    precision: str = "bf16-mixed"
    compile: bool = False
    model: dict[str, Any] = field(default_factory=dict)
    """Fields of minigpt's ModelConfig that differ from the shape."""
    train: dict[str, Any] = field(default_factory=dict)
    """Fields of minigpt's TrainConfig beside precision and compile."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of the process, beside those of this one."""

    @property
    def name(self) -> str:
        extras = [f"{name} {value}" for name, value in (self.model | self.train | self.environment).items()]
        return " ".join([self.engine, KINDS[self.precision], "compiled" if self.compile else "eager", *extras])


def race(precision: str, with_peers: bool = True) -> list[Contestant]:
    """transformers as it comes; minigpt and its peers in one precision; the fastest with kept memory; bare products."""
    engines = ("transformers", "litgpt", "minigpt") if with_peers else ("minigpt",)
    rough = precision != "32-true"
    first = [Contestant(engine=engines[0], precision="32-true")] if rough else []
    runners = [Contestant(engine=engine, precision=precision, compile=compiled,
                          **(FAST if engine == "minigpt" and (compiled or rough) else {}))
               for compiled in (False, True) for engine in engines]
    keepers = [Contestant(engine=engine, precision=precision, compile=True, environment=KEEPS)
               for engine in engines if engine != "minigpt"]
    products = [Contestant(engine="products", precision=kind) for kind in BANDS if kind in (precision, "32-true")]
    return first + runners + keepers + products


def rungs() -> list[Contestant]:
    """minigpt, one choice at a time, from float32 and eager upwards."""
    return [Contestant(engine="minigpt", precision="32-true"),
            Contestant(engine="minigpt", precision="32-true", train={"float32_matmul": "medium"}),
            Contestant(engine="minigpt"),
            Contestant(engine="minigpt", **PIECES),
            Contestant(engine="minigpt", **FAST),
            Contestant(engine="minigpt", compile=True),
            Contestant(engine="minigpt", compile=True, **PIECES),
            Contestant(engine="minigpt", compile=True, **FAST),
            Contestant(engine="minigpt", compile=True, **FAST, environment={HUGE_PAGES: "1"}),
            Contestant(engine="minigpt", compile=True, **FAST, environment={GIVES_BACK: "1"}),
            Contestant(engine="products", precision="32-true"), Contestant(engine="products")]


def shape(size: str, family: str) -> ModelConfig:
    """The same size as GPT-NeoX or as LLaMA, within a few percent."""
    both = SIZES[size] | {"n_kv_heads": SIZES[size]["n_heads"]}
    width = both["d_model"]
    if family == "neox":
        return ModelConfig(**both, **huggingface.NEOX, d_ff=4 * width, parallel=True, rotary_fraction=0.25)
    return ModelConfig(**both, **huggingface.LLAMA, d_ff=-(-width * 8 // 3 // 32) * 32)


def litgpt_shape(config: ModelConfig) -> dict[str, Any]:
    """The fields of litgpt's Config."""
    llama = config.norm == "rmsnorm"
    return {"block_size": config.max_seq_len, "vocab_size": config.vocab_size, "padded_vocab_size": config.vocab_size,
            "n_layer": config.n_layers, "n_head": config.n_heads, "n_query_groups": config.n_kv_heads,
            "n_embd": config.d_model, "intermediate_size": config.d_ff, "rotary_percentage": config.rotary_fraction,
            "parallel_residual": config.parallel, "bias": config.bias, "attn_bias": config.bias,
            "norm_class_name": "RMSNorm" if llama else "LayerNorm", "norm_eps": config.norm_eps,
            "mlp_class_name": "LLaMAMLP" if llama else "GptNeoxMLP"}


def prepare(folder: Path, config: ModelConfig, batch_size: int, n_steps: int) -> None:
    """The weights and the tokens that all contestants share.

    The tokens are drawn by Zipf's law, as words are, so that there is something to learn.
    """
    weights = huggingface.to_weights(config, GPT(config, seed=1).state_dict())
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "weights.safetensors")
    likelihood = 1 / torch.arange(1, config.vocab_size + 1)
    ids = torch.multinomial(likelihood, n_steps * batch_size * (config.max_seq_len + 1), replacement=True,
                            generator=torch.Generator().manual_seed(2))
    save_file({"ids": ids.view(n_steps, batch_size, -1)}, folder / "tokens.safetensors")


class Process:
    """A contestant at work."""

    def __init__(self, contestant: Contestant, config: ModelConfig, shared: Path, folder: Path, options: Any) -> None:
        folder.mkdir()
        for name in ("weights.safetensors", "tokens.safetensors"):
            (folder / name).symlink_to(shared / name)
        spec = {"engine": contestant.engine, "threads": options.threads, "batch_size": options.batch_size,
                "learning_rate": LEARNING_RATE, "model": dataclasses.asdict(config) | contestant.model,
                "train": {"precision": contestant.precision, "compile": contestant.compile} | contestant.train,
                "transformers": huggingface.to_config(config, 0), "litgpt": litgpt_shape(config)}
        (folder / "spec.json").write_text(json.dumps(spec))
        python = peers.python("litgpt") if contestant.engine == "litgpt" else sys.executable
        self.contestant, self.errors = contestant, (folder / "errors.txt").open("w+")
        self.process = subprocess.Popen([python, HERE / "contestant.py", folder], text=True, stderr=self.errors,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env=surroundings(contestant, options.threads))
        self.parameters = self.answer()["parameters"]
        self.first_step_seconds = self.ask(1)["seconds"][0]
        self.ask(WARM_UP - 1)

    def ask(self, what: int | str) -> dict[str, Any]:
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        if line := self.process.stdout.readline():
            return json.loads(line)
        self.errors.seek(0)
        raise SystemExit(f"{self.contestant.name} ended early; its last lines:\n{self.errors.read()[-2000:]}")

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def surroundings(contestant: Contestant, threads: int) -> dict[str, str]:
    """The variables of a contestant's process."""
    return os.environ | {"OMP_NUM_THREADS": str(threads), HUGE_PAGES: "0"} | contestant.environment


def measure(contestants: list[Contestant], config: ModelConfig, options: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second, memory and losses of contestants that take turns."""
    n_steps = WARM_UP + options.rounds * options.steps + 2
    load = os.getloadavg()[0]
    running: list[Process] = []
    with tempfile.TemporaryDirectory() as place:
        shared = Path(place)
        prepare(shared, config, options.batch_size, n_steps)
        try:
            for number, contestant in enumerate(contestants):
                running.append(Process(contestant, config, shared, shared / str(number), options))
                print(f"  {contestant.name}: first step {running[-1].first_step_seconds:.1f} s", flush=True)
            check_sizes(running, config)
            rounds = [turn(running, number, options.steps) for number in range(options.rounds)]
            rows = [row(process, [r[process] for r in rounds], config, options) for process in running]
            profiles = {p.contestant.name: p.ask("profile") for p in running if p.contestant.engine == "minigpt"}
        finally:
            for process in running:
                process.end()
    check_losses(rows)
    return {"rows": rows, "profiles": profiles, "load": load, "parameters": config.n_parameters,
            "flops_per_token": config.flops_per_token}


def turn(running: list[Process], number: int, steps: int) -> dict[Process, dict[str, Any]]:
    """Every contestant makes its steps; another one begins each time."""
    first = number % len(running)
    return {process: process.ask(steps) for process in running[first:] + running[:first]}


def row(process: Process, answers: list[dict[str, Any]], config: ModelConfig, options: Any) -> dict[str, Any]:
    """What one contestant did: tokens per second of each round, memory and losses; of `products`, FLOP per second."""
    contestant = process.contestant
    tokens = options.steps * options.batch_size * config.max_seq_len
    speeds = [tokens / sum(answer["seconds"]) for answer in answers]
    known = {"name": contestant.name, "engine": contestant.engine, "precision": contestant.precision,
             "compile": contestant.compile, "environment": contestant.environment, "tokens_per_second": speeds}
    if contestant.engine == "products":
        return known | {"flops_per_second": 6 * config.n_matmul_parameters * statistics.median(speeds)}
    return known | {"peak_megabytes": max(answer["peak_megabytes"] for answer in answers),
                    "first_step_seconds": process.first_step_seconds,
                    "losses": [loss for answer in answers for loss in answer["losses"]]}


def check_sizes(running: list[Process], config: ModelConfig) -> None:
    for process in running:
        wanted = config.n_matmul_parameters if process.contestant.engine == "products" else config.n_parameters
        if process.parameters != wanted:
            raise SystemExit(f"{process.contestant.name} has {process.parameters:,} parameters but the shape has "
                             f"{wanted:,}; make the shapes equal before you compare speeds")


def check_losses(rows: list[dict[str, Any]]) -> None:
    """Stop if a contestant trains another model; else note how far each lies from the first, eager float32."""
    runners = [row for row in rows if row["engine"] != "products"]
    for row in runners:
        gaps = torch.tensor(row["losses"], dtype=torch.double) - torch.tensor(runners[0]["losses"], dtype=torch.double)
        row["loss_gap"] = float(gaps.abs().max())  # not a number, if one of them is none
        if not row["loss_gap"] <= BANDS[row["precision"]]:
            raise SystemExit(f"the loss of {row['name']} lies {row['loss_gap']:.4f} from that of {runners[0]['name']} "
                             f"but may lie {BANDS[row['precision']]}; it does other work, so its speed says nothing")


def table(part: dict[str, Any]) -> list[list[Any]]:
    """A row for each contestant, with its speed as a multiple of the first one's in the same rounds."""
    rate = {row["precision"]: row["flops_per_second"] for row in part["rows"] if row["engine"] == "products"}
    runners = [row for row in part["rows"] if row["engine"] != "products"]
    base = runners[0]["tokens_per_second"]
    lines = []
    for row in runners:
        speeds = row["tokens_per_second"]
        ratio = statistics.median(mine / other for mine, other in zip(speeds, base, strict=True))
        reached = statistics.median(speeds) * part["flops_per_token"]
        lines.append([row["name"], f"{statistics.median(speeds):,.0f}", f"{min(speeds):,.0f} to {max(speeds):,.0f}",
                      f"{ratio:.2f}", f"{reached / rate[row['precision']]:.0%}", f"{row['peak_megabytes']:,.0f}",
                      f"{row['loss_gap']:.4f}"])
    return lines


def lead(rows: list[dict[str, Any]]) -> str:
    """Sentences on the best setting of minigpt beside the best of its peers, from the same rounds.

    First the peers as they come, then with memory that is kept for them.
    """
    ours = best(row for row in rows if row["engine"] == "minigpt")
    theirs = [row for row in rows if row["engine"] not in ("minigpt", "products")]
    said = ""
    for how, told in (("", False), (", told to keep memory", True)):
        if peer := best(row for row in theirs if bool(row["environment"]) is told):
            pairs = zip(ours["tokens_per_second"], peer["tokens_per_second"], strict=True)
            ratios = sorted(mine / other for mine, other in pairs)
            said += (f" The best of minigpt ({ours['name']}) makes {statistics.median(ratios):.2f} times the tokens of "
                     f"the best of its peers{how} ({peer['name']}); over the rounds {ratios[0]:.2f} to "
                     f"{ratios[-1]:.2f}.")
    return said


def best(rows: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    return max(rows, key=lambda row: statistics.median(row["tokens_per_second"]), default=None)


COLUMNS = ["who", "tokens/s", "spread", "times the first", "of the products' rate", "peak MB", "loss differs by"]


def pages(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Tables and curves as the book shows them."""
    tables, curves = [], []
    for name, part in parts.items():
        rates = ", ".join(f"{row['flops_per_second'] / 1e9:,.0f} GFLOP/s in {row['name'].split()[1]}"
                          for row in part["rows"] if row["engine"] == "products")
        caption = (f"{name}: {part['parameters']:,} parameters, {part['tokens_per_step']:,} tokens a step, "
                   f"{part['threads']} threads, {part['date']}, "
                   f"at a load of {part['load']:.0f} from other work when it began. The bare matrix products: {rates}."
                   f"{lead(part['rows'])}")
        tables.append({"caption": caption, "columns": COLUMNS, "rows": table(part)})
        ours = best(row for row in part["rows"] if row["engine"] == "minigpt")["name"]
        tables.append({"caption": f"{name}: where a step of {ours} goes.", "columns": ["work", "share of the time"],
                       "rows": [[work, f"{share:.0%}"] for work, share in part["profiles"][ours].items()]})
        lines = {row["name"]: row["losses"] for row in part["rows"] if "losses" in row}
        curves.append({"caption": f"{name}: the losses of all contestants, one over the other.",
                       "x": f"step, after {WARM_UP} to warm up", "y": "loss, nats per token", "lines": lines})
    return {"tables": tables, "curves": curves}


def code() -> str:
    """Twelve characters that change with minigpt or with this measurement."""
    own = b"".join((HERE / name).read_bytes() for name in ("training.py", "contestant.py", "peers.py"))
    return code_fingerprint()[:6] + hashlib.sha256(own).hexdigest()[:6]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", choices=list(SIZES), help="default: 10m and 50m")
    options.add_argument("--family", choices=["neox", "llama"], help="default: both")
    options.add_argument("--precision", choices=list(BANDS), help="default: both, one after the other")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=2, help="steps of each contestant a round")
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options.add_argument("--rungs", action="store_true", help="minigpt's own choices, instead of its peers")
    options.add_argument("--alone", action="store_true", help="minigpt without its peers")
    options.add_argument("--again", action="store_true", help="measure parts that are there already, too")
    options.add_argument("--output", type=Path, default=RESULT)
    given = options.parse_args()
    found = json.loads(given.output.read_text()) if given.output.exists() else {"parts": {}}
    sizes = [given.size] if given.size else ["10m", "50m"]
    families = [given.family] if given.family else ["neox", "llama"]
    precisions = [None] if given.rungs else [given.precision] if given.precision else list(BANDS)
    for size, family, precision in itertools.product(sizes, families, precisions):
        name = f"{size} {family} {KINDS[precision] if precision else 'rungs'}"
        if not given.again and found["parts"].get(name, {}).get("code") == code():
            print(f"{name}: measured already; --again measures it anew")
            continue
        print(name, flush=True)
        given.batch_size = BATCH[size]
        config = shape(size, family)
        contestants = race(precision, with_peers=not given.alone) if precision else rungs()
        part = measure(contestants, config, given)
        found["parts"][name] = part | {"threads": given.threads, "date": datetime.date.today().isoformat(),
                                       "tokens_per_step": given.batch_size * config.max_seq_len, "code": code()}
        result = {"title": "Training speed on a processor", "command": "python bench/training.py",
                  "date": datetime.date.today().isoformat(), "machine": machine(), **pages(found["parts"]),
                  "parts": found["parts"]}
        write_text(given.output, json.dumps(result, indent=1) + "\n")
        for line in table(part):
            print("  " + "  ".join(f"{cell:>10}" for cell in line))


if __name__ == "__main__":
    main()
