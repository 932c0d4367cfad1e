"""Colour formulas: arithmetic on ``v`` that a user types, read safely and evaluated on whole arrays.

A formula passes three gates, each of which knows only what it lets through:

1. ``_check_text``: length, tokens, brackets. No quote, no dot but a number's, no bracket but ``()``, no word of
   Python's and no letter outside ASCII passes: names cannot be disguised, and a column is a character.
2. ``ast.parse``, which reads and runs nothing.
3. ``_Compiler``: a list of allowed nodes and names, and bounds on size and depth.

What comes out is a list of instructions for a stack machine. Nothing of Python is reachable from it but the
functions of ``functions.py``, and all values are float32, so no number can grow: ``9**9**9`` is infinity.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import keyword
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial, reduce
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from lib_dumpunet.errors import FormulaError, SourcePosition, within
from lib_dumpunet.image.functions import ADVICE, CONSTANTS, FUNCTIONS, NEEDS_MANY
from lib_dumpunet.image.grammar import (
    CHANNELS,
    CHARACTER_REMEDIES,
    CLOSE,
    EXAMPLE,
    MAX_BRACKETS,
    MAX_DEPTH,
    MAX_LENGTH,
    MAX_NODES,
    MOST_QUOTED,
    TERNARY,
    WANTS_OPERAND,
    WORD_REMEDIES,
)
from lib_dumpunet.settings import ColorSettings

Float32 = NDArray[np.float32]

_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)|(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<operator>\*\*|//|[<>=!]=|[-+*/%<>(),])"
)
# NumPy's own names, as formulas of the original extension have them.
_PREFIX = re.compile(r"(?<![A-Za-z_0-9.])(?:np|numpy)\.(?=[A-Za-z_])")

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.true_divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.remainder,
    ast.Pow: np.power,
    ast.UAdd: np.positive,
    ast.USub: np.negative,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}


@dataclass(frozen=True)
class Instruction:
    """Replace the last ``count`` values on the stack by what ``apply`` makes of them; None pushes ``v``."""

    apply: Callable[..., Any] | None
    count: int


@dataclass(frozen=True)
class Formula:
    """A colour formula, ready to be evaluated; made by ``compile_formula``."""

    text: str
    program: tuple[Instruction, ...] = dataclasses.field(repr=False, compare=False)

    def __call__(self, v: Any) -> Any:
        """Evaluate on every element of ``v``, in float32 and without warnings; a comparison gives 0 or 1.

        Returns:
            a float32 array of the shape of ``v``; a scalar where ``v`` is one or the formula lacks it.
        """
        v = np.asarray(v, dtype=np.float32)
        stack: list[Any] = []
        with np.errstate(all="ignore"):
            for step in self.program:
                if step.apply is None:
                    stack.append(v)
                    continue
                start = len(stack) - step.count
                # NumPy 1 and 2 promote scalars differently, and comparisons are boolean, so force float32.
                stack[start:] = [np.asarray(step.apply(*stack[start:])).astype(np.float32, copy=False)]
        return stack.pop()[()]


def compile_formula(text: str, field: str = "") -> Formula:
    """Read a formula of ``v``.

    Args:
        text: what the user typed.
        field: where it was typed, for the message.

    Raises:
        FormulaError: with the place of what is not arithmetic on ``v``.
    """
    try:
        return _compile(text)
    except FormulaError as error:
        raise error.in_field(field) from None


def compile_channels(color: ColorSettings) -> tuple[Formula, ...]:
    """Read the formulas of a custom method, none for the others; a mistake names its channel.

    Raises:
        FormulaError: at the first formula that is not arithmetic on ``v``.
    """
    if color.method not in CHANNELS:
        return ()
    formulas = []
    for i, (letter, text) in enumerate(zip(CHANNELS[color.method], color.channels, strict=True)):
        with within("formula", str(i)):
            formulas.append(compile_formula(text, f"Color space, {letter}"))
    return tuple(formulas)


@lru_cache(maxsize=64)
def _compile(text: str) -> Formula:
    # Blanks in place of prefixes: what is read has every character where the user has it.
    plain = _PREFIX.sub(lambda match: " " * len(match[0]), text)
    try:
        return Formula(text, _read(plain))
    except FormulaError as error:
        assert error.source is not None
        error.source = SourcePosition(text[: len(error.source.text)], error.source.position)
        raise


def _read(text: str) -> tuple[Instruction, ...]:
    _check_text(text)
    body = text.translate({ord(c): " " for c in "\t\r\n"})
    start = len(body) - len(body.lstrip(" "))
    try:
        tree = ast.parse(body[start:], mode="eval")
    except SyntaxError as error:
        position = start + (error.offset or 1) - 1
        _refuse(text, min(max(position, 0), len(text)), "the formula cannot be read from here on", EXAMPLE)
    except (RecursionError, MemoryError, ValueError, OverflowError):
        _refuse(text, len(text), "the formula is nested too deeply", "Use fewer brackets and signs.")
    compiler = _Compiler(text, start)
    compiler.visit(tree.body, 1)
    return tuple(compiler.program)


def _refuse(text: str, position: int, problem: str, remedy: str) -> NoReturn:
    raise FormulaError(problem, remedy=remedy, source=SourcePosition(text, position))


def _check_text(text: str) -> None:
    """Let through only text of bounded length whose tokens and brackets are those of arithmetic, in its order."""
    if len(text) > MAX_LENGTH:
        problem = f"the formula has {len(text)} characters"
        _refuse(text[:MAX_LENGTH], MAX_LENGTH, problem, f"Use at most {MAX_LENGTH}.")
    if not text.strip():
        _refuse(text, 0, "the formula is empty", EXAMPLE)
    nesting = _Nesting(text)
    before = ""
    for token in _tokens(text):
        _check_order(text, before, token)
        nesting.take(token)
        before = token.group()
    nesting.finish()
    if before in WANTS_OPERAND:
        _refuse(text, len(text), "the formula ends too early", EXAMPLE)


def _tokens(text: str) -> Iterator[re.Match[str]]:
    """Split into numbers, names and operators; refuse other characters, and Python's words."""
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            remedy = CHARACTER_REMEDIES.get(text[position], EXAMPLE)
            _refuse(text, position, f"{text[position]!r} has no meaning in a formula", remedy)
        if keyword.iskeyword(token.group()) and token.group() not in TERNARY:
            remedy = WORD_REMEDIES.get(token.group(), EXAMPLE)
            _refuse(text, position, f"{token.group()} has no meaning in a formula", remedy)
        if token.lastgroup != "space":
            yield token
        position = token.end()


def _check_order(text: str, before: str, token: re.Match[str]) -> None:
    """Refuse a token that cannot follow ``before``: the tree's own errors point elsewhere in each Python version."""
    this, position = token.group(), token.start()
    if before in WANTS_OPERAND:
        # sin() and clip(v, 0, 1,) are read; a function then counts what it got.
        allowed = ("(", ")", "+", "-") if before in ("(", ",") else ("(", "+", "-")
        if _is_operator(token) and this not in allowed:
            _refuse(text, position, f"a value is missing before {this}", EXAMPLE)
    elif not _is_operator(token):
        _refuse(text, position, f"an operator is missing before {this[:MOST_QUOTED]}", "Write 2*v for 2v.")


def _is_operator(token: re.Match[str]) -> bool:
    return token.lastgroup == "operator" or token.group() in TERNARY


class _Nesting:
    """Counts brackets, and in each pair of them pairs an ``if`` with its ``else``."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._open: list[int] = []  # where brackets begin
        self._conditions: list[int | None] = [None]  # by level: an `if` that waits for its `else`

    def take(self, token: re.Match[str]) -> None:
        """Read on, and refuse what has no partner."""
        this, position = token.group(), token.start()
        if this == "(":
            self._open.append(position)
            self._conditions.append(None)
            if len(self._open) > MAX_BRACKETS:
                remedy = f"Use at most {MAX_BRACKETS} levels."
                _refuse(self._text, position, "brackets are nested too deeply", remedy)
        elif this == "if":
            if self._conditions[-1] is not None:
                remedy = "Put the inner condition into brackets."
                _refuse(self._text, position, "a condition stands inside of another", remedy)
            self._conditions[-1] = position
        elif this == "else":
            if self._conditions[-1] is None:
                _refuse(self._text, position, "else has no if before it", "Write a if condition else b.")
            self._conditions[-1] = None
        elif this in (")", ","):
            self._require_else()
            if this == ")":
                if not self._open:
                    _refuse(self._text, position, "this bracket was never opened", "Take it out.")
                self._open.pop()
                self._conditions.pop()

    def finish(self) -> None:
        """Refuse what is still open at the end."""
        if self._open:
            _refuse(self._text, self._open[-1], "this bracket is not closed", "Add a closing bracket.")
        self._require_else()

    def _require_else(self) -> None:
        start = self._conditions[-1]
        if start is not None:
            _refuse(self._text, start, "this if has no else", "Write a if condition else b.")


class _Compiler:
    """Turn the allowed nodes of a syntax tree into instructions, and refuse every other node."""

    def __init__(self, text: str, start: int) -> None:
        self.text = text
        self.start = start
        self.nodes = 0
        self.program: list[Instruction] = []
        self.readers: dict[type[ast.AST], Callable[[Any, int], None]] = {
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.UnaryOp: self._unary,
            ast.BinOp: self._binary,
            ast.Compare: self._compare,
            ast.Call: self._call,
            ast.IfExp: self._condition,
        }

    def visit(self, node: ast.expr, depth: int) -> None:
        """Append what leaves the value of ``node`` on the stack."""
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            self._refuse(node, "the formula is too long or nested too deeply", "Make it shorter.")
        reader = self.readers.get(type(node))
        if reader is None:
            self._refuse(node, "this is not arithmetic", EXAMPLE)
        reader(node, depth)

    def _constant(self, node: ast.Constant, depth: int) -> None:
        # A boolean is an int to isinstance.
        if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
            self._refuse(node, f"{node.value!r} is not a number", EXAMPLE)
        self._push(_float(node.value))

    def _name(self, node: ast.Name, depth: int) -> None:
        if node.id == "v":
            self.program.append(Instruction(None, 0))
        elif node.id in CONSTANTS:
            self._push(CONSTANTS[node.id])
        elif node.id in FUNCTIONS:
            remedy = f"Write {node.id}(...) with what it is applied to."
            self._refuse(node, f"{node.id} is a function", remedy)
        else:
            self._refuse_name(node)

    def _unary(self, node: ast.UnaryOp, depth: int) -> None:
        self._apply(node, node.op, [node.operand], depth)

    def _binary(self, node: ast.BinOp, depth: int) -> None:
        self._apply(node, node.op, [node.left, node.right], depth)

    def _compare(self, node: ast.Compare, depth: int) -> None:
        steps = [self._operator(node, op) for op in node.ops]
        self._operands([node.left, *node.comparators], depth)
        self.program.append(Instruction(partial(_chain, steps), len(steps) + 1))

    def _call(self, node: ast.Call, depth: int) -> None:
        if not isinstance(node.func, ast.Name) or node.keywords:
            problem = "a call is a function's name and values in brackets"
            self._refuse(node.func, problem, "Write 2*(v+1) for 2(v+1).")
        if node.func.id == "v" or node.func.id in CONSTANTS:
            problem = f"{node.func.id} is a number, not a function"
            self._refuse(node.func, problem, f"Write {node.func.id}*(v+1) to multiply.")
        if node.func.id not in FUNCTIONS:
            self._refuse_name(node.func)
        function = FUNCTIONS[node.func.id]
        if not function.least <= len(node.args) <= function.most:
            problem = f"{node.func.id} takes {function.arguments}, not {len(node.args)}"
            self._refuse(node.func, problem, "Separate arguments by commas.")
        self._operands(node.args, depth)
        self.program.append(Instruction(function.apply, len(node.args)))

    def _condition(self, node: ast.IfExp, depth: int) -> None:
        self._operands([node.test, node.body, node.orelse], depth)
        self.program.append(Instruction(FUNCTIONS["where"].apply, 3))

    def _apply(self, node: ast.expr, kind: ast.AST, operands: Sequence[ast.expr], depth: int) -> None:
        function = self._operator(node, kind)
        self._operands(operands, depth)
        self.program.append(Instruction(function, len(operands)))

    def _operands(self, operands: Sequence[ast.expr], depth: int) -> None:
        for operand in operands:
            self.visit(operand, depth + 1)

    def _operator(self, node: ast.expr, kind: ast.AST) -> Callable[..., Any]:
        if type(kind) not in _OPERATORS:
            self._refuse(node, "this is not arithmetic", EXAMPLE)
        return _OPERATORS[type(kind)]

    def _push(self, value: float) -> None:
        with np.errstate(all="ignore"):
            constant = np.float32(value)
        self.program.append(Instruction(lambda: constant, 0))

    def _refuse_name(self, node: ast.Name) -> NoReturn:
        if node.id in NEEDS_MANY:
            remedy = "A formula sees one number at a time."
            self._refuse(node, f"{node.id} needs more than one number", remedy)
        known, name = ["v", *CONSTANTS, *FUNCTIONS], node.id[:MOST_QUOTED]
        advice = [ADVICE[node.id]] if node.id in ADVICE else difflib.get_close_matches(name, known, 1, CLOSE)
        remedy = f"Write {advice[0]}." if advice else "Use v, pi, e and NumPy's element-wise functions."
        self._refuse(node, f"{name} is not known", remedy)

    def _refuse(self, node: ast.expr, problem: str, remedy: str) -> NoReturn:
        _refuse(self.text, self.start + node.col_offset, problem, remedy)


def _chain(steps: Sequence[Callable[..., Any]], *values: Any) -> Any:
    """Compare neighbours, all of which must hold: ``a < b < c``."""
    held = [step(a, b) for step, a, b in zip(steps, values[:-1], values[1:], strict=True)]
    return reduce(np.logical_and, held)


def _float(value: float) -> float:
    """Turn a whole number too large for a float into infinity, as a number with a point already is."""
    try:
        return float(value)
    except OverflowError:
        return float("inf")
