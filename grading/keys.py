"""What a question's check is made of, so that a change is told from one that does not touch it."""

import ast
from collections.abc import Iterator

NAMED = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.Import, ast.ImportFrom)


def question_sources(text: str) -> dict[str, str]:
    """By question id the code that its check consists of: the question, all that it names, all that these name.

    Under "QUESTIONS" stands the code of all. Comments and layout do not count. A question whose id is not written
    out in the text is not among them.
    """
    statements = ast.parse(text).body
    definitions: dict[str, list[ast.stmt]] = {}
    for statement in statements:
        for name in _bound(statement):
            definitions.setdefault(name, []).append(statement)
    for_all = [s for s in statements if not isinstance(s, NAMED) and not _is_text(s)]
    found = {name: [call] for name, call in _questions(statements)} | {"QUESTIONS": definitions.get("QUESTIONS", [])}
    return {name: _closure([*nodes, *for_all], definitions) for name, nodes in found.items()}


def _questions(statements: list[ast.stmt]) -> Iterator[tuple[str, ast.Call]]:
    for node in (node for statement in statements for node in ast.walk(statement)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Question":
            for keyword in node.keywords:
                if keyword.arg == "id" and isinstance(keyword.value, ast.Constant):
                    yield str(keyword.value.value), node


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement at the top of a module gives a meaning to."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _closure(first: list[ast.AST], definitions: dict[str, list[ast.stmt]]) -> str:
    """The code of these nodes and of every definition that they lead to."""
    found = list(first)
    for node in found:
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        found += [made for name in sorted(names) for made in definitions.get(name, []) if made not in found]
    return "\n".join(ast.unparse(node) for node in found)
