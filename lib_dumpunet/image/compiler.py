"""Compile colour formulas to instructions of a stack machine; nothing else of a user's text is ever run."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NoReturn

import numpy as np

from lib_dumpunet.image.functions import ADVICE, CONSTANTS, FUNCTIONS, NEEDS_MANY
from lib_dumpunet.image.grammar import CLOSE, EXAMPLE, MAX_DEPTH, MAX_NODES, MOST_QUOTED
from lib_dumpunet.image.syntax import check_text, refuse

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
    """Replace the last ``count`` values on the stack by the result of ``apply`` on them; None pushes ``v``."""

    apply: Callable[..., Any] | None
    count: int


def compile_text(text: str) -> tuple[Instruction, ...]:
    """Compile a formula of ``v``; the last instruction leaves its value on the stack.

    Raises:
        FormulaError: with the position of anything but arithmetic on ``v``.
    """
    check_text(text)
    body = text.translate({ord(c): " " for c in "\t\r\n"})
    start = len(body) - len(body.lstrip(" "))
    try:
        tree = ast.parse(body[start:], mode="eval")
    except SyntaxError as error:
        position = start + (error.offset or 1) - 1
        refuse(text, min(max(position, 0), len(text)), "the formula cannot be parsed from here on", EXAMPLE)
    except (RecursionError, MemoryError, ValueError, OverflowError):
        refuse(text, len(text), "the formula is nested too deeply", "Use fewer brackets and signs.")
    compiler = _Compiler(text, start)
    compiler.visit(tree.body, 1)
    return tuple(compiler.program)


class _Compiler:
    """Compile the allowed nodes of a syntax tree, and refuse all others."""

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
        """Append the instructions that leave the value of ``node`` on the stack."""
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
            remedy = f"Write {node.id}(...) with its argument."
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
            problem = "a call is a function's name with values in brackets"
            self._refuse(node.func, problem, "Write 2*(v+1) for 2(v+1).")
        if node.func.id == "v" or node.func.id in CONSTANTS:
            problem = f"{node.func.id} is a number, not a function"
            self._refuse(node.func, problem, f"Write {node.func.id}*(v+1) to multiply.")
        if node.func.id not in FUNCTIONS:
            self._refuse_name(node.func)
        function = FUNCTIONS[node.func.id]
        if not function.least <= len(node.args) <= function.most:
            problem = f"{node.func.id} takes {function.arguments}, not {len(node.args)}"
            self._refuse(node.func, problem, "Separate arguments with commas.")
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
            remedy = "A formula gets one number at a time."
            self._refuse(node, f"{node.id} needs more than one number", remedy)
        known, name = ["v", *CONSTANTS, *FUNCTIONS], node.id[:MOST_QUOTED]
        advice = [ADVICE[node.id]] if node.id in ADVICE else difflib.get_close_matches(name, known, 1, CLOSE)
        remedy = f"Write {advice[0]}." if advice else "Use v, pi, e and NumPy's element-wise functions."
        self._refuse(node, f"{name} is not known", remedy)

    def _refuse(self, node: ast.expr, problem: str, remedy: str) -> NoReturn:
        refuse(self.text, self.start + node.col_offset, problem, remedy)


def _chain(steps: Sequence[Callable[..., Any]], *values: Any) -> Any:
    """Combine a chain of comparisons by "and": ``a < b < c``."""
    held = [step(a, b) for step, a, b in zip(steps, values[:-1], values[1:], strict=True)]
    return reduce(np.logical_and, held)


def _float(value: float) -> float:
    """Convert to a float; an integer too large for it becomes infinity, as a decimal number already does."""
    try:
        return float(value)
    except OverflowError:
        return float("inf")
