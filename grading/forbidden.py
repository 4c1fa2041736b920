"""What a question forbids, found in the text of a submission before anything runs.

Not only the answer cell counts but whatever the answer is made of: an import, an alias or a helper in another cell.
Cells that only try something out beside the answer may use what they like, and so may the course's own cells.
Names that are put together at run time are the affair of guard.py.
"""

import ast
import builtins
import dis
import re
import types
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from IPython.core.inputtransformer2 import TransformerManager

from grading.course import Cell
from grading.question import Case, Probe

TIMING = re.compile(r"^(\s*)%%?(?:timeit|time|prun|capture)\b(?:[ \t]+-\w+(?:[ \t]+\d+)?)*", re.M)


LONGEST_KEPT = 20_000  # characters
LONGEST_NAME = 200  # characters: enough to begin with a forbidden name
MOST_CHARACTERS = 500_000  # of all cells together; nobody writes as much
LOADS, STORES = ("LOAD_GLOBAL", "LOAD_NAME"), ("STORE_NAME", "STORE_GLOBAL")


@dataclass(frozen=True)
class Statement:
    """One statement at the top level of a cell, and whether the student wrote it."""

    tree: ast.stmt
    is_own: bool = True

    @cached_property
    def loads(self) -> set[str]:
        """The names that it takes from the notebook or from Python; what is local to a function is not among them."""
        return {step.argval for step in self._steps if step.opname in LOADS} | texts_as_names(self.tree)

    @cached_property
    def binds(self) -> set[str]:
        """The names that it gives a value in the notebook, by itself or by changing a part of it."""
        parts = [n for n in ast.walk(self.tree) if isinstance(n, ast.Attribute | ast.Subscript)]
        changed = [_changed(part) for part in parts if isinstance(part.ctx, ast.Store)]
        return {step.argval for step in self._steps if step.opname in STORES}.union(*changed)

    @cached_property
    def _steps(self) -> list[dis.Instruction]:
        tree = ast.fix_missing_locations(ast.Module([self.tree], []))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(_instructions(compile(tree, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)))


def _instructions(code: types.CodeType) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _instructions(inner)


def _changed(part: ast.Attribute | ast.Subscript) -> set[str]:
    """`box.name = ...`, `box["name"] = ...` and `globals()["name"] = ...` change the box and may make the name."""
    name = part.attr if isinstance(part, ast.Attribute) else text_of(part.slice) or ""
    while isinstance(part, ast.Attribute | ast.Subscript):
        part = part.value
    return {name, part.id if isinstance(part, ast.Name) else ""} - {""}


def statements(source: str, is_own: bool = True) -> tuple[Statement, ...]:
    """The statements of a cell, remembered: the course's cells come again and again. A huge one is not kept.

    Raises  RecursionError if it is nested so deeply that not every process can compile it.
    """
    return (_statements if len(source) < LONGEST_KEPT else _statements.__wrapped__)(source, is_own)


@lru_cache(maxsize=256)
def _statements(source: str, is_own: bool) -> tuple[Statement, ...]:
    """The statements of a cell, magics resolved; none if it cannot be compiled, since then it does not run either."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(TransformerManager().transform_cell(TIMING.sub(r"\1", source)))
            compile(tree, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError, MemoryError):
        return ()
    return tuple(Statement(single, is_own) for node in tree.body for single in _split(node))


def imports(cells: Iterable[Cell]) -> frozenset[str]:
    """The modules that the code cells import at their top level."""
    trees = [one.tree for cell in cells if cell.kind == "code" for one in statements(cell.source)]
    names = {alias.name for tree in trees if isinstance(tree, ast.Import) for alias in tree.names}
    return frozenset(names | {tree.module for tree in trees if isinstance(tree, ast.ImportFrom) and not tree.level})


def _split(node: ast.stmt) -> list[ast.stmt]:
    """An import of several names as several imports, so that each counts only where it is used."""
    if isinstance(node, ast.Import):
        return [ast.Import([alias]) for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module != "__future__":
        return [ast.ImportFrom(node.module, [alias], node.level) for alias in node.names]
    return [node]


def asked_names(case: Case) -> list[str]:
    """The names of the student's work for which a case asks."""
    if not isinstance(case, Probe):
        return [case.name]
    probe = statements(case.code)
    known = {*case.inputs, *dir(builtins)}.union(*(statement.binds for statement in probe))
    return [name for statement in probe for name in sorted(statement.loads) if name not in known]


def forbidden_name(cells: list[tuple[str, bool]], answer: str, asked: set[str], names: tuple[str, ...]) -> str:
    """The first forbidden name on which the answer depends, or "".

    `cells` holds (source, whether the student wrote it) of all that runs; `answer` is the source of the answer cell,
    which counts as a whole, and `asked` are the names for which the judge asks.
    Raises  ValueError or RecursionError if there is more text, or it is nested deeper, than anybody writes.
    """
    if not names:
        return ""
    if (n := sum(len(source) for source, _ in cells)) > MOST_CHARACTERS:
        raise ValueError(f"the cells hold {n:,} characters, the limit is {MOST_CHARACTERS:,}")
    mine = list(statements(answer))
    rest = [statement for source, is_own in cells for statement in statements(source, is_own)]
    made = set().union(*(statement.binds for statement in mine))
    reached = mine + needed(rest, asked | set().union(*(statement.loads for statement in mine)) - made)
    full = aliases(statement.tree for statement in reached)
    used = set().union(*(names_used(statement, full) for statement in reached if statement.is_own))
    used |= {name.partition("builtins")[2].lstrip("_.") for name in used if "builtins" in name}
    return next((n for n in names if any(u == n or u.startswith(f"{n}.") for u in used)), "")


def needed(rest: list[Statement], wanted: set[str]) -> list[Statement]:
    """The statements that bind a wanted name, those that bind what they use, and so on."""
    binders: dict[str, list[Statement]] = {}
    for statement in rest:
        for name in statement.binds:
            binders.setdefault(name, []).append(statement)
    found, names, seen = set(), list(wanted), set(wanted)
    while names:
        for statement in binders.pop(names.pop(), ()):
            if statement not in found:
                found.add(statement)
                names += statement.loads - seen
                seen |= statement.loads
    return [statement for statement in rest if statement in found]


def texts_as_names(tree: ast.AST) -> set[str]:
    """Names that are spelled as texts: `globals()["help"]`, `eval("help(x)")`."""
    names = {name.partition(".")[0] for node, name in spelled(tree) if isinstance(node, ast.Subscript | ast.Call)}
    return names.union(*(statement.loads for statement in evaluated(tree))) - {""}


def spelled(tree: ast.AST) -> list[tuple[ast.expr, str]]:
    """Every expression with the dotted name that it spells; parts come first, so that none is looked into twice."""
    return [(node, dotted(node)) for node in reversed(list(ast.walk(tree))) if isinstance(node, ast.expr)]


def evaluated(tree: ast.AST) -> list[Statement]:
    """The statements that `eval`, `exec` and `compile` are given as a text."""
    names = dict(spelled(tree))
    calls = [node for node in names if isinstance(node, ast.Call) and node.args]
    texts = [text_of(call.args[0]) for call in calls if _takes_text(names[call.func])]
    return [statement for text in texts if text for statement in statements(text)]


def _takes_text(function: str) -> bool:
    return function.rpartition(".")[2] in ("eval", "exec") or function in ("compile", "builtins.compile")


def aliases(trees: Iterable[ast.AST]) -> dict[str, str]:
    """What a plain name stands for, as a full name, through as many aliases as there are."""
    full: dict[str, str] = {}
    for tree in trees:
        names = dict(spelled(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                full |= {alias.asname: alias.name for alias in node.names if alias.asname}
            elif isinstance(node, ast.ImportFrom) and node.module:
                full |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Assign) and (value := names[node.value]):
                full |= {to.id: value for to in node.targets if isinstance(to, ast.Name) and to.id != value}
    return _through(full)


def _through(full: dict[str, str]) -> dict[str, str]:
    """The same with what lies at the end of each chain of aliases; a circle is gone through once."""
    done: dict[str, str] = {}
    for name in full:
        way: dict[str, None] = {}
        while name in full and name not in done and name not in way:
            way[name] = None
            name = full[name].partition(".")[0]
        for step in reversed(way):
            done[step] = resolve(full[step], done)
    return done


def names_used(statement: Statement, full: dict[str, str]) -> set[str]:
    """Every dotted name that is imported or used, under its full name; a method also as ".method"."""
    used = statement.loads.union(*(names_used(inner, full) for inner in evaluated(statement.tree)))
    for node in ast.walk(statement.tree):
        if isinstance(node, ast.Import):
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            used |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            used.add(f".{node.attr}")
    for _, name in spelled(statement.tree):
        first = name.partition(".")[0]
        if "." in name:
            used |= {"." + name.rpartition(".")[2], *([name] if first in statement.loads else [])}  # and not local
        if first in full:
            used.add(resolve(name, full))
    star = full.get("*", "").removesuffix("*")
    return used | {star + name for name in statement.loads if star}


def resolve(name: str, full: dict[str, str]) -> str:
    """The full name behind a name."""
    first, dot, rest = name.partition(".")
    return (full.get(first, first) + dot + rest)[:LONGEST_NAME]


@lru_cache(maxsize=4096)
def dotted(node: ast.expr) -> str:
    """The dotted name that an expression spells, by dots or by texts, or ""; of a long one the beginning."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}"[:LONGEST_NAME] if before and node.attr != "__dict__" else before
    if isinstance(node, ast.Subscript) and (text := text_of(node.slice)):
        before = dotted(node.value)
        return text if before in ("", "globals", "sys.modules", "modules") else f"{before}.{text}"[:LONGEST_NAME]
    return _called(dotted(node.func).rpartition(".")[2], node.args) if isinstance(node, ast.Call) else ""


def _called(function: str, args: list[ast.expr]) -> str:
    """What the functions that look a name up would find, as a dotted name."""
    if function in ("globals", "locals"):
        return "globals"
    texts = [text_of(arg) for arg in args]
    if function in ("__import__", "import_module"):
        return (texts or [""])[0] or ""
    if function == "getattr" and len(args) > 1 and texts[1]:
        return f"{dotted(args[0])}.{texts[1]}"
    return dotted(args[0]) if function == "vars" and args else ""


def text_of(node: ast.AST) -> str | None:
    """The text that an expression of constant texts spells."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [text_of(node.left), text_of(node.right)]
    elif isinstance(node, ast.JoinedStr):
        parts = [text_of(part.value if isinstance(part, ast.FormattedValue) else part) for part in node.values]
    else:
        return None
    return None if None in parts else "".join(parts)
