"""minigpt on the command line."""

import errno
import json
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from minigpt.config import RunConfig

USAGE = """usage: minigpt WORD ...

  minigpt journey                                 text, tokens, training, scores and report card in about a minute
  minigpt plan RECIPE --gpu h100 --gpus 8         what a run needs: memory, days, energy, money: plan.json, plan.md
  minigpt shards RECIPE [--processes 2 ...]       the text of a recipe as tokens; the same command goes on after a stop
  minigpt shards RECIPE --part 0 --parts 8        one part of it, on one of several machines; the last joins them
  minigpt shards --check FOLDER                   is every shard of a run there, once, and what was written?
  minigpt slurm RECIPE [--parts 8 ... --submit]   write the job script that makes the shards on a cluster, and send it
  minigpt slurm RECIPE [--nodes 4 ... --submit]   write the job script that trains a recipe on a cluster, and send it
  minigpt train RECIPE [--train.steps 300 ...]    train a recipe; the same command goes on after a stop
  minigpt generate FOLDER --prompt "def "         let a trained model write
  minigpt evaluate FOLDER                         score a trained model: scores.json
  minigpt report FOLDER                           what a run, finished or not, did: report.html, report.md, report.json
  minigpt export FOLDER TARGET                    write a trained model as Hugging Face's transformers reads it
  minigpt recipes                                 the recipes and their sizes

`minigpt WORD --help` lists the settings of a word, `minigpt WORD RECIPE --help` what a recipe sets them to."""


def journey(arguments: list[str]) -> None:
    from minigpt import journey, recipes

    config, folder = run_settings(recipes.recipe("journey"), arguments, "journey")
    card = journey.travel(config, folder)
    for name, value in card["bits_per_byte"].items():
        print(f"     {name:<8} {value:5.2f} bits per byte")
    rate = card["parse_rate"]
    print(f"     {rate['before']:.0%} of {rate['samples']} generated functions parsed before training, "
          f"{rate['after']:.0%} after")


def plan(arguments: list[str]) -> None:
    from minigpt import recipes
    from minigpt.cluster import plan as planning
    from minigpt.cluster.gpus import GPUS, find
    from minigpt.cluster.network import Network

    if not arguments or arguments[0].startswith("-"):
        raise ValueError(f"plan needs a recipe; choose one of {', '.join(recipes.RECIPES)}")
    recipe, kinds = recipes.recipe(arguments[0]), ", ".join(GPUS)

    def settings(config: Annotated[RunConfig, tyro.conf.arg(name="")] = recipe,
                 gpu: Annotated[str, tyro.conf.arg(help=f"One of {kinds}.")] = "h100", gpus: int | None = None,
                 nodes: int | None = None, gpus_per_node: int = 8, mfu: float = planning.MFU,
                 price: float | None = None, currency: str = "USD", days: float | None = None,
                 money: float | None = None, folder: Path | None = None,
                 network: Network = Network()) -> None:  # noqa: B008 (frozen)
        """Work out on paper what a run needs, and refuse what cannot fit, divide or finish.

        Args:
            gpus: how many in all; nodes times gpus-per-node if not given.
            nodes: how many machines; as many as the GPUs fill if not given.
            gpus_per_node: how many GPUs share a machine.
            mfu: share of the peak that the model's operations reach on one node.
            price: of one GPU and hour; the table's if not given.
            currency: of the price.
            days: the time the run may take.
            money: what it may cost.
            folder: where plan.json and plan.md go; runs/NAME if not given.
        """
        if gpus is not None and nodes is not None and gpus != nodes * gpus_per_node:
            raise ValueError(f"{nodes} nodes of {gpus_per_node} are {nodes * gpus_per_node} GPUs but --gpus says "
                             f"{gpus}; give one of the two")
        if gpus is None:
            gpus = gpus_per_node if nodes is None else nodes * gpus_per_node
        cluster = planning.Cluster(gpu=find(gpu), gpus=gpus, mfu=mfu, price=price, gpus_per_node=gpus_per_node,
                                   currency=currency, network=network)
        found = planning.make_plan(config, cluster, days, money)
        page = planning.write_plan(found, config, folder or Path("runs") / config.name)
        print(planning.to_markdown(found))
        print(f"{page} and {page.with_suffix('.json').name} hold this plan")

    tyro.cli(settings, args=arguments[1:], prog=f"minigpt plan {arguments[0]}")


def shards(arguments: list[str]) -> None:
    from minigpt import corpus, recipes
    from minigpt.disk import locked
    from minigpt.train import claim

    if arguments[:1] == ["--check"]:
        if len(arguments) != 2:
            raise ValueError("shards --check needs one folder; give that of a run")
        check(Path(arguments[1]))
        return
    if not arguments or arguments[0].startswith("-"):
        raise ValueError(f"shards needs a recipe or --check FOLDER; choose one of {', '.join(recipes.RECIPES)}")
    recipe = recipes.recipe(arguments[0])

    def settings(config: Annotated[RunConfig, tyro.conf.arg(name="")] = recipe, folder: Path | None = None,
                 processes: int = 1, part: int | None = None, parts: int = 1):
        """Write the tokenizer and the shards of a run, which `minigpt train` with the same settings then uses.

        Args:
            folder: where the run is kept; runs/NAME if not given.
            processes: how many processes turn text into tokens.
            part: write only this part, counted from 0, beside other calls that write the others.
            parts: how many parts there are.
        """
        return config, folder or Path("runs") / config.name, processes, part, parts

    config, folder, processes, part, parts = tyro.cli(settings, args=arguments[1:],
                                                      prog=f"minigpt shards {arguments[0]}")
    if part is None and parts > 1:
        raise ValueError(f"--parts {parts} needs the number of the part to write; add --part, from 0 to {parts - 1}")
    if part is not None:
        shards_part(config, folder, part, parts, processes)
        return
    with locked(folder):
        claim(folder, config)
        tokenizer = corpus.prepare(config, folder, processes)
    print_shards(folder / "shards")
    if config.data.documents == "pack":
        split = corpus.Shards(folder / "shards", "train", tokenizer, config.model.max_seq_len, "pack")
        print(f"packed into {len(split):,} windows of {split.length} tokens, {split.padding:.1%} of them padding")


def shards_part(config: RunConfig, folder: Path, part: int, parts: int, processes: int) -> None:
    """Write one part and tell what is missing, or, if nothing is, what there is."""
    from minigpt.corpus import prepare_part
    from minigpt.train import claim

    if missing := prepare_part(config, folder, part, parts, processes, lambda: claim(folder, config)):
        print(f"part {part} of {parts} is whole; not yet whole: {', '.join(map(str, missing))}")
    else:
        print_shards(folder / "shards")


def check(folder: Path) -> None:
    """One line for each split of a run, or for each part if they are not joined; raises ValueError at any fault."""
    from minigpt.corpus import progress

    parts = {} if (folder / "shards").exists() else progress(folder)
    for part, (state, documents) in parts.items():
        print(f"part {part} of {len(parts)}: {state}, {documents:,} documents")
    if parts and all(state == "whole" for state, _ in parts.values()):
        raise ValueError(f"every part of {folder} is whole but they are not joined; call `minigpt shards RECIPE "
                         f"--part 0 --parts {len(parts)}` once more")
    if parts:
        raise ValueError(f"the shards of {folder} are not whole; call `minigpt shards RECIPE --part I --parts "
                         f"{len(parts)}` for the parts that are not")
    print_shards(folder / "shards")


def print_shards(folder: Path) -> None:
    """One line for each split. Raises ValueError, naming the shard, if one is missing or not what was written."""
    from minigpt.corpus import check_shards

    for split, found in check_shards(folder)["splits"].items():
        documents, tokens, size = (sum(shard[name] for shard in found) for name in ("documents", "tokens", "bytes"))
        print(f"{split:<11}{len(found):>6,} shards {documents:>12,} documents {tokens:>16,} tokens {size:>18,} bytes")


def slurm(arguments: list[str]) -> None:
    from minigpt import recipes
    from minigpt.cluster import slurm as jobs

    if not arguments or arguments[0].startswith("-"):
        raise ValueError(f"slurm needs a recipe; choose one of {', '.join(recipes.RECIPES)}")
    name, recipe, usual = arguments[0], recipes.recipe(arguments[0]), jobs.Job()

    def settings(config: Annotated[RunConfig, tyro.conf.arg(name="")] = recipe,
                 job: Annotated[jobs.Job, tyro.conf.arg(name="")] = usual, folder: Path | None = None,
                 parts: int = 0, submit: bool = False) -> tuple[RunConfig, jobs.Job, Path, int, bool]:
        """Write the job script that trains a recipe on a cluster; every field of the recipe can be changed here.

        Args:
            folder: where the run is kept, on a disk that all nodes share; runs/NAME if not given.
            parts: write the script of an array instead, of so many tasks that write the recipe's shards.
            submit: hand the script to Slurm.
        """
        return config, job, folder or Path("runs") / config.name, parts, submit

    config, job, folder, parts, submit = tyro.cli(settings, args=arguments[1:], prog=f"minigpt slurm {name}")
    if parts < 0:
        raise ValueError(f"parts is {parts} but counts tasks; give a positive number")
    if found := jobs.jobs_of(folder, must_know=submit):
        raise ValueError(f"job {', '.join(found)} works in {folder} already; wait for it, end it with scancel, "
                         "or name another folder with --folder")
    from minigpt.cluster.ready import check_memory, check_ready, check_writable

    if parts:
        check_writable(folder)
        script = jobs.write_shards_array(config, name, folder, job, parts)
    else:
        check_memory(config, job.gpu, job.ranks, job.gpus_per_node)
        check_ready(config, folder, job.ranks)
        script = jobs.write_training(config, name, folder, job)
    print(f"job {jobs.submit(script)} is queued; watch it with: squeue --me" if submit else
          f"{script}\nread it, then send it: sbatch {shlex.quote(str(script))}")


def train(arguments: list[str]) -> None:
    from minigpt import corpus, recipes
    from minigpt import train as training
    from minigpt.disk import locked
    from minigpt.distributed import by_the_first, leave
    from minigpt.tokenizer import Tokenizer

    if not arguments or arguments[0].startswith("-"):
        raise ValueError(f"train needs a recipe; choose one of {', '.join(recipes.RECIPES)}")
    config, folder, copy = train_settings(recipes.recipe(arguments[0]), arguments)
    fabric = training.make_fabric(config.train)

    def prepare() -> None:
        if fabric.world_size > 1 and not (folder / "shards").exists():
            raise ValueError(f"{folder} has no shards, and {fabric.world_size} processes do not wait while one writes "
                             f"them; write them first, with `minigpt shards {arguments[0]}` and the same settings")
        with locked(folder):
            training.claim(folder, config)
            corpus.prepare(config, folder)

    by_the_first(prepare)
    try:
        training.train(config, Tokenizer.load(folder / "tokenizer.json"), copy or folder / "shards", folder,
                       fabric=fabric)
    except training.Stopped:
        leave(fabric)
        raise
    leave(fabric)
    fabric.print(f"{folder} is trained; next: minigpt evaluate {folder}")


def train_settings(recipe: RunConfig, arguments: list[str]) -> tuple[RunConfig, Path, Path | None]:
    """As `run_settings`, and where a copy of the shards lies."""

    def settings(config: Annotated[RunConfig, tyro.conf.arg(name="")] = recipe, folder: Path | None = None,
                 shards: Path | None = None) -> tuple[RunConfig, Path, Path | None]:
        """Train a recipe; every field of it can be changed here.

        Args:
            folder: where the run is kept; runs/NAME if not given.
            shards: a copy of the run's shards to read from, such as one on this machine's own disk.
        """
        return config, folder or Path("runs") / config.name, shards

    return tyro.cli(settings, args=arguments[1:], prog=f"minigpt train {arguments[0]}")


def run_settings(recipe: RunConfig, arguments: list[str], word: str) -> tuple[RunConfig, Path]:
    """The recipe with the fields that the command line changes, and the run's folder."""

    def settings(config: Annotated[RunConfig, tyro.conf.arg(name="")] = recipe, folder: Path | None = None):
        """Train a recipe; every field of it can be changed here.

        Args:
            folder: where the run is kept; runs/NAME if not given.
        """
        return config, folder or Path("runs") / config.name

    return tyro.cli(settings, args=arguments, prog=f"minigpt {word}")


def generate(arguments: list[str]) -> None:
    from minigpt.checkpoint import load
    from minigpt.generate import Sampling, stream
    from minigpt.quantize import lighter

    calm = Sampling(temperature=0.3)

    def settings(folder: tyro.conf.Positional[Path], prompt: str = "\n\n\ndef ", max_new_tokens: int = 100,
                 stop: tuple[str, ...] = (), weights: Literal["float32", "bfloat16", "int8"] = "float32",
                 sampling: Annotated[Sampling, tyro.conf.arg(name="")] = calm) -> None:
        """Print what a trained model adds to a prompt, as it is written.

        Args:
            folder: a run or a checkpoint.
            prompt: the beginning of the text.
            max_new_tokens: how many tokens to add at most.
            stop: end before the first of these strings.
            weights: lighter ones write faster; int8 rounds every weight to one of 255 steps.
        """
        model, tokenizer, _ = load(folder)
        model = lighter(model, weights)
        pieces = stream(model, tokenizer, prompt, max_new_tokens, sampling=sampling, stop=stop)
        print(prompt, end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
        print()

    tyro.cli(settings, args=arguments, prog="minigpt generate")


def evaluate(arguments: list[str]) -> None:
    def settings(folder: tyro.conf.Positional[Path]) -> None:
        """Score a trained run and write scores.json.

        Args:
            folder: a run.
        """
        from minigpt.evaluate import evaluate_run

        scores = evaluate_run(folder)
        print(json.dumps({name: scores[name] for name in ("bits_per_byte", "parse_rate")}, indent=2))

    tyro.cli(settings, args=arguments, prog="minigpt evaluate")


def report(arguments: list[str]) -> None:
    def settings(folder: tyro.conf.Positional[Path]) -> None:
        """Write the report card of a run, as far as it came.

        Args:
            folder: a run.
        """
        from minigpt.evaluate import write_report

        write_report(folder)
        print(folder / "report.html")

    tyro.cli(settings, args=arguments, prog="minigpt report")


def export(arguments: list[str]) -> None:
    def settings(folder: tyro.conf.Positional[Path], target: tyro.conf.Positional[Path]) -> None:
        """Write a trained model as a folder that transformers, and what builds on it, can open.

        Args:
            folder: a finished run or a checkpoint.
            target: a new folder.
        """
        from minigpt import checkpoint

        print(checkpoint.export(folder, target))

    tyro.cli(settings, args=arguments, prog="minigpt export")


def recipes(arguments: list[str]) -> None:
    from minigpt.recipes import RECIPES

    for name, recipe in RECIPES.items():
        config = recipe()
        print(f"{name:<10} {config.model.n_parameters:>15,} parameters, {config.train.steps:>7,} steps of "
              f"{config.tokens_per_step:>9,} tokens   {recipe.__doc__.splitlines()[0]}")


WORDS = {word.__name__: word for word in
         (journey, plan, shards, slurm, train, generate, evaluate, report, export, recipes)}


def main() -> None:
    word, arguments = (sys.argv[1:2] or ["--help"])[0], sys.argv[2:]
    if word in ("--help", "-h"):
        print(USAGE)
        return
    if word not in WORDS:
        sys.exit(tell(f"there is no word {word!r}; choose one of {', '.join(WORDS)}", 1))
    if word in ("plan", "shards", "slurm", "train") and arguments[:1] in (["--help"], ["-h"]):
        arguments = ["journey", *arguments]  # all recipes have the same settings
    warnings.filterwarnings("ignore", module="lightning")
    if status := call(WORDS[word], arguments):
        sys.exit(status)


def call(word: Callable[[list[str]], None], arguments: list[str]) -> int:
    """The exit status: 0 done; 75 stopped by a signal with a checkpoint, start it again; 74 the disk, start it again
    after a while; 70 a crash, also one that a network or another process's end has caused; 1 something that a person
    must change; 130 Ctrl-C; 141 nobody reads on what we print.
    """
    try:
        try:
            word(arguments)
        finally:
            sys.stdout.flush()
    except ValueError as fault:
        return tell(fault, 1)
    except KeyboardInterrupt:
        return tell("stopped by Ctrl-C; the same command goes on from what is done, or begins again", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python itself still wants to print
        return 141
    except OSError as fault:
        if not is_of_disk(fault):
            return tell(f"a connection failed ({(str(fault).splitlines() or [type(fault).__name__])[0]}); "
                        "call the same command again when the network is there", 70)
        wrong_place = isinstance(fault, FileNotFoundError | FileExistsError | NotADirectoryError | PermissionError)
        return tell(f"{fault.filename or 'the disk'}: {fault.strerror or fault}; free some space or name another "
                    "folder, then call the same command again", 1 if wrong_place else 74)
    except SystemExit as stop:
        if stop.code == 75:
            tell(stop, 75)
        raise
    except Exception:
        traceback.print_exc()
        return 70
    return 0


def is_of_disk(fault: OSError) -> bool:
    """Whether a file or a disk is at fault: libraries for networks raise OSError too, most without an errno."""
    if fault.filename:
        return True
    return fault.errno in errno.errorcode and not isinstance(fault, ConnectionError | TimeoutError)


def tell(what: object, status: int) -> int:
    print(f"minigpt: {what}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
