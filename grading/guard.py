"""The guard inside a worker: what a question forbids cannot be called by the student while that question is asked.

It holds for the thing and not for its name: an alias, a name put together at run time, an import in another cell and
a reference kept in a list all lead to the same function. A library's own use of it goes on working, and so does the
course's.

A process has no secrets from itself. Code that makes code objects of its own, looks for the guard with `gc` or
`ctypes`, loads a second copy of a module in C, or asks a process that it started earlier, gets past. So nothing else
hangs on the guard: expected values are not in this process, and who gets past it has at most called what was to be
written.
"""

import functools
import importlib
import importlib.util
import os
import secrets
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

COURSE = f"<course {secrets.token_hex(8)} "  # how the file names of the course's own cells and probes begin
IMPORTING = "importlib"  # in the file names of what imports
READ_THEIR_CALLER = ("eval", "exec")  # a stand-in would give them the wrong namespace, so an audit hook watches them


class Forbidden(BaseException):
    """Raised inside the student's code; its message is the forbidden name. Few `except` catch it."""


class Guard:
    """Knows the names that a lab forbids; made in a worker before any of the student's code runs.

    Each function behind such a name is given code that asks who calls, and that does what it did before unless the
    name is forbidden at the moment. So to forbid and to allow again is no more than to set `active`.
    """

    def __init__(self, names: list[str], writable: tuple[str, ...]):
        self.writable, self.active = ("<", *writable), frozenset()
        self.names = [name for name in names if not name.startswith(".")]
        for name in self.names:
            load(name)
        self.roots = {root: name for name in self.names if (root := root_of(name))}
        self.files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
        for name in self.names:
            replace_in_c(name)
        self.wholes = {name for name in self.names if not isinstance(look_up(name)[1], types.FunctionType)}
        self.barred: dict[types.FunctionType, set[str]] = {}  # with its forbidden names
        self._bar()
        sys.addaudithook(self._on_event)

    @contextmanager
    def holding(self, names: list[str]) -> Iterator[None]:
        """While this context lasts, the student's code cannot call what these names stand for."""
        if self.has_more:
            self._bar()
        self.active = frozenset(names)
        try:
            yield
        finally:
            self.active = frozenset()

    def _bar(self) -> None:
        """Bar what the names stand for, as far as it is loaded by now."""
        self.has_more = False
        for name in self.names:
            for function in functions(name):
                if function not in self.barred:
                    self.barred[function] = set()
                    function.__code__ = self._barred(function, self.barred[function])
                self.barred[function].add(name)

    def _barred(self, function: types.FunctionType, names: set[str]) -> types.CodeType:
        """Code that asks who calls before it does what the function did."""
        original = copy_of(function)

        def call(*args: Any, **kwargs: Any) -> Any:
            for name in names & self.active:
                if not self._is_allowed(sys._getframe(2), name, function):
                    raise Forbidden(name)
            return original(*args, **kwargs)

        constants = tuple(call if constant == "CALL" else constant for constant in passing_on.__code__.co_consts)
        return passing_on.__code__.replace(
            co_consts=constants, co_freevars=function.__code__.co_freevars, co_name=function.__name__
        )

    def _is_allowed(self, caller: types.FrameType, name: str, function: types.FunctionType) -> bool:
        """Whether the course calls, or a library: its own member, or a function that its code spells.

        `map` and `vmap` call what they are given, by no name.
        """
        if is_of_course(caller):
            return True
        if name in self.wholes:
            return self._is_own_use(caller, name)
        names, known = caller.f_code.co_names, caller.f_globals
        spells = function.__name__ in names or any(known.get(name) is function for name in names)
        return spells and self._is_library(caller)

    def _is_own_use(self, caller: types.FrameType, name: str) -> bool:
        """Whether the code of a forbidden library is at work."""
        is_same = str(caller.f_globals.get("__name__")).partition(".")[0] == name.partition(".")[0]
        return is_same and self._is_library(caller)

    def _is_library(self, caller: types.FrameType) -> bool:
        """Whether the calling code stands in a file that a student cannot write."""
        return self._is_closed(caller.f_code.co_filename)

    def _is_closed(self, file: str) -> bool:
        return file.startswith("/") and not file.startswith(self.writable)

    def _check_name(self, file: str, caller: types.FrameType) -> None:
        """Refuse to let a student's text pass for a library's."""
        if (self._is_closed(file) or IMPORTING in file) and not (self._is_library(caller) or is_importing(caller)):
            raise ValueError(f"this text does not stand in {file}; give another name, as '<text>'")

    def _on_event(self, event: str, args: tuple) -> None:
        """Refuse modules that load too late or twice to be barred, and what no stand-in can refuse."""
        if event == "compile" and isinstance(args[1], str):
            self._check_name(args[1], sys._getframe(1))
        if event != "exec":
            return
        caller, file = sys._getframe(1), getattr(args[0], "co_filename", "")
        is_import = is_importing(caller)
        while caller.f_back and is_importing(caller):
            caller = caller.f_back
        for root, name in self.roots.items():
            if file.startswith(root):
                is_late = name in self.active and not (is_of_course(caller) or self._is_own_use(caller, name))
                if is_late or file in self.files:
                    raise Forbidden(name)
                self.has_more = True
        self.files.add(file)
        held = self.active.intersection(READ_THEIR_CALLER)
        if held and not (is_import or is_of_course(caller) or self._is_library(caller)):
            raise Forbidden(min(held))


def is_of_course(caller: types.FrameType) -> bool:
    return caller.f_code.co_filename.startswith(COURSE)


def is_importing(caller: types.FrameType) -> bool:
    return IMPORTING in caller.f_code.co_filename


def passing_on(*args: Any, **kwargs: Any) -> Any:
    """The code that stands in for a barred function; the constant is replaced by what is to be called."""
    call: Any = "CALL"
    return call(*args, **kwargs)


def copy_of(function: types.FunctionType) -> types.FunctionType:
    """The function as it is now, whatever code it is given later."""
    parts = (function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    copy = types.FunctionType(*parts)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def in_place_of(found: Callable) -> types.FunctionType:
    """A Python function that does what `found` does, with its attributes (a ufunc's `reduce`)."""

    def stand_in(*args: Any, **kwargs: Any) -> Any:
        return found(*args, **kwargs)

    for name in (name for name in dir(found) if not name.startswith("__")):
        setattr(stand_in, name, getattr(found, name))
    functools.update_wrapper(stand_in, found, updated=())
    del stand_in.__wrapped__
    return stand_in


def load(name: str) -> None:
    """Import the module of that name, or the one that holds the thing of that name; what is not there is not barred."""
    for at, letter in enumerate(f"{name}."):
        if letter == ".":
            try:
                importlib.import_module(name[:at])
            except ImportError:
                return


def replace_in_c(name: str) -> None:
    """Put a Python function in the place of a function in C, wherever it is known, because only that can be barred."""
    owner, found = look_up(name)
    is_python = isinstance(found, type | types.FunctionType | types.ModuleType)
    if owner is None or is_python or not callable(found) or name in READ_THEIR_CALLER:
        return
    stand_in = in_place_of(found)
    try:
        setattr(owner, name.rpartition(".")[2], stand_in)
    except TypeError:  # a method of a type in C: only the text can be judged
        return
    for place in [module for module in list(sys.modules.values()) if isinstance(module, types.ModuleType)]:
        vars(place).update({key: stand_in for key, value in list(vars(place).items()) if value is found})


def look_up(name: str) -> tuple[Any, Any]:
    """The module or class that holds the thing of that full name, and the thing; (None, None) if there is none."""
    path, parts = name.split(".") if "." in name else ["builtins", name], []
    for at in range(len(path) - 1, 0, -1):
        module, parts = sys.modules.get(".".join(path[:at])), path[at:]
        if module is not None:
            break
    else:
        return None, None
    owner, found = None, module
    for part in parts:
        if part not in dir(found):
            return None, None
        owner, found = found, getattr(found, part)
    return owner, found


def root_of(name: str) -> str:
    """Where the files of a module lie, or "" if the name is none of a module."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return ""
    is_file = spec is not None and spec.has_location
    return (os.path.dirname(spec.origin) if spec.submodule_search_locations else spec.origin) if is_file else ""


def modules_of(name: str) -> list[types.ModuleType]:
    """The loaded modules of that name and below it."""
    loaded = list(sys.modules.items())
    return [m for known, m in loaded if m is not None and (known == name or known.startswith(f"{name}."))]


def functions(name: str) -> list[types.FunctionType]:
    """The function of that name; or those of a class, or of a module with its classes and its own modules."""
    found = look_up(name)[1]
    if isinstance(found, types.FunctionType):
        return [found]
    if isinstance(found, type):
        return methods(found)
    things = [thing for module in modules_of(name) for thing in list(vars(module).values())]
    mine = [thing for thing in things if isinstance(thing, type | types.FunctionType) and belongs(thing, name)]
    return [function for thing in mine for function in (methods(thing) if isinstance(thing, type) else [thing])]


def belongs(thing: Any, name: str) -> bool:
    """Whether a function or a class was defined in the module of that name or below it."""
    return f"{thing.__module__}.".startswith(f"{name}.")


def methods(kind: type) -> list[types.FunctionType]:
    """The functions that a class defines itself."""
    bare = [getattr(value, "__func__", getattr(value, "fget", value)) for value in vars(kind).values()]
    return [function for function in bare if isinstance(function, types.FunctionType)]
