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
    """The statements of a cell, remembered: the course's cells come again and again. A huge one is not kept."""
    return (_statements if len(source) < LONGEST_KEPT else _statements.__wrapped__)(source, is_own)


@lru_cache(maxsize=256)
def _statements(source: str, is_own: bool) -> tuple[Statement, ...]:
    """The statements of a cell, magics resolved; none if it cannot be compiled, since then it does not run either."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(TransformerManager().transform_cell(TIMING.sub(r"\1", source)))
            compile(tree, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
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
    """
    if not names:
        return ""
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
    found: list[Statement] = []
    while more := [statement for statement in rest if statement not in found and statement.binds & wanted]:
        found += more
        wanted = wanted.union(*(statement.loads for statement in more))
    return found


def texts_as_names(tree: ast.AST) -> set[str]:
    """Names that are spelled as texts: `globals()["help"]`, `eval("help(x)")`."""
    spelled = {dotted(n).partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Subscript | ast.Call)}
    return spelled.union(*(statement.loads for statement in evaluated(tree))) - {""}


def evaluated(tree: ast.AST) -> list[Statement]:
    """The statements that `eval` and `exec` are given as a text."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    texts = [text_of(call.args[0]) for call in calls if dotted(call.func).rpartition(".")[2] in ("eval", "exec")]
    return [statement for text in texts if text for statement in statements(text)]


def aliases(trees: Iterable[ast.AST]) -> dict[str, str]:
    """What a plain name stands for, as a full name."""
    full: dict[str, str] = {}
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            full |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            full |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Assign) and (value := dotted(node.value)):
            full |= {target.id: value for target in node.targets if isinstance(target, ast.Name) and target.id != value}
    return full


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
        if isinstance(node, ast.expr) and "." in (name := dotted(node)):
            is_known = name.partition(".")[0] in statement.loads  # and not local to a function
            used |= {"." + name.rpartition(".")[2], *([name] if is_known else [])}
        if isinstance(node, ast.expr) and (name := dotted(node)).partition(".")[0] in full:
            used.add(resolve(name, full))
    stars = {value.removesuffix("*") for value in full.values() if value.endswith(".*")}
    return used | {star + name for star in stars for name in statement.loads}


def resolve(name: str, full: dict[str, str]) -> str:
    """The full name behind a name, through as many aliases as there are."""
    for _ in range(len(full)):
        first, dot, rest = name.partition(".")
        if first not in full:
            break
        name = full[first] + dot + rest
    return name


def dotted(node: ast.expr) -> str:
    """The dotted name that an expression spells, by dots or by texts, or ""."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before and node.attr != "__dict__" else before
    if isinstance(node, ast.Subscript) and (text := text_of(node.slice)):
        before = dotted(node.value)
        return text if before in ("", "globals", "sys.modules", "modules") else f"{before}.{text}"
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
