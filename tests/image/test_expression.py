"""Formulas mean the same as in NumPy, and only arithmetic is accepted."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_dumpunet.errors import FormulaError
from lib_dumpunet.image.expression import Formula, compile_formula
from lib_dumpunet.image.functions import FUNCTIONS

V = np.linspace(-2, 2, 41, dtype=np.float32)
pi = np.float32(np.pi)

MEANINGS = {
    "v": V,
    "(2+v)/3": (2 + V) / 3,
    " abs(v)\n": abs(V),
    "-v**2": -(V * V),
    "+v - -v": V + V,
    "v//1 + v%1": V // 1 + V % 1,
    "clip(v,0,1)": np.clip(V, 0, 1),
    "maximum(0,\n v)": np.maximum(0, V),
    "v>0": V > 0,
    "0<=v<1": (V >= 0) & (V < 1),
    "-1<v!=0<1.5": (V > -1) & (V != 0),
    "where(v>0, v, 0)": np.where(V > 0, V, 0),
    "where(v, 1, 2)": np.where(V != 0, 1, 2),
    "where(logical_and(v>0, v<1), 1, 0)": (V > 0) & (V < 1),
    "sin(pi*v)*e": np.sin(pi * V) * np.float32(np.e),
    "1e2*.5+1.": np.float32(51),
    "round(v)": np.round(V),
    "round(v, 1)": np.round(V, 1),
    "heaviside(v, 0.5)": np.heaviside(V, np.float32(0.5)),
    "1/(1+exp(-v))": 1 / (1 + np.exp(-V)),
    "asin(v/2)": np.arcsin(V / 2),
    "(v>0)*2": (V > 0) * 2.0,
    "v==v": np.ones_like(V),
    "1/0": np.float32(np.inf),
    "np.abs(v)": np.abs(V),
    "numpy.where(v > 0, v, np.pi)": np.where(V > 0, V, np.pi),
    "max(v, 0)": np.maximum(V, 0),
    "min(v, 0)": np.minimum(V, 0),
    "v if v > 0 else 2": np.where(V > 0, V, 2),
    "1 if v > 0 else 2 if v < -1 else 3": np.where(V > 0, 1, np.where(V < -1, 2, 3)),
    "9**9**9**9": np.float32(np.inf),
    "9" * 400: np.float32(np.inf),
}


@pytest.mark.parametrize("text", MEANINGS)
def test_meaning(text: str) -> None:
    result = compile_formula(text)(V)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.asarray(MEANINGS[text]).astype(np.float32), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_gives_float32(name: str) -> None:
    count = FUNCTIONS[name].least
    for arguments in (["v"] * count, ["2"] * count, (["v", "2", "3"])[:count]):
        formula = compile_formula(f"{name}({', '.join(arguments)})")
        result = formula(V)
        assert result.dtype == np.float32
        assert result.shape in ((), V.shape)
        assert formula(np.float32(1)).dtype == np.float32
    own = getattr(np, name, None)
    if own is not None and name not in ("where", "clip", "max", "min"):
        with np.errstate(all="ignore"):
            expected = own(*[V] * count) if count < 3 else None
        np.testing.assert_allclose(
            compile_formula(f"{name}({','.join(['v'] * count)})")(V), expected, rtol=1e-6
        )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_number_of_arguments(name: str) -> None:
    for count in {0, FUNCTIONS[name].least - 1, FUNCTIONS[name].most + 1}:
        with pytest.raises(FormulaError, match="takes"):
            compile_formula(f"{name}({','.join(['v'] * count)})")


REFUSED = {
    "": 0,
    "   ": 0,
    "v.real": 1,
    "v.__class__": 1,
    "mp.sin(v)": 2,
    "np": 0,
    "np.sine(v)": 3,
    "().__class__.__bases__": 2,
    "__import__('os')": 11,
    "__import__(v)": 0,
    "__builtins__": 0,
    "__debug__": 0,
    "eval(v)": 0,
    "exec(v)": 0,
    "open(v)": 0,
    "print(v)": 0,
    "getattr(v, v)": 0,
    "globals()": 0,
    "os": 0,
    "sin": 0,
    "sin + v": 0,
    "max(v)": 0,
    "v(v)": 0,
    "np.interp(v, 0, 1)": 3,
    "x": 0,
    "mean(v)": 0,
    "v[0]": 1,
    "[v]": 0,
    "[v for v in v]": 0,
    "{v}": 0,
    "{v: v}": 0,
    "(v for v in v)": 3,
    "sin(v for v in v)": 6,
    "lambda: v": 0,
    "(lambda v: v)(v)": 1,
    "(v := 1)": 3,
    "v = 1": 2,
    "f'{v}'": 1,
    "'v'": 0,
    '"v"': 0,
    "b'v'": 1,
    "`v`": 0,
    "1j": 1,
    "2J*v": 1,
    "0x10": 1,
    "0b1": 1,
    "1_000": 1,
    "007": None,
    "2v": 1,
    "2(v)": 0,
    "v(1)": 0,
    "pi(v)": 0,
    "sin(v)(v)": 0,
    "clip(v, a_min=0)": 13,
    "clip(*v)": 5,
    "clip(**v)": 5,
    "clip(v, 0)": 0,
    "sin()": 0,
    "v and v": 2,
    "v or v": 2,
    "not v": 0,
    "v if v": 2,
    "v else v": 2,
    "v if v if v else v else v": 7,
    "abs(v if v)": 6,
    "v is v": 2,
    "v in v": 2,
    "v not in v": 2,
    "v @ v": 2,
    "v & v": 2,
    "v | v": 2,
    "v ^ v": 2,
    "~v": 0,
    "v << 1": 3,
    "v >> 1": 3,
    "v, v": 0,
    "(v, v)": 0,
    "()": 0,
    "*v": 0,
    "v;v": 1,
    "v # comment": 2,
    "v\\\n+1": 1,
    "True": 0,
    "None": 0,
    "...": 0,
    "await v": 0,
    "(yield)": 1,
    "yield v": 0,
    "import os": 0,
    "del v": 0,
    "v\0": 1,
    "\0": 0,
    "v\x0c+1": 1,
    "\ufeffv": 0,
    "\uff56": 0,
    "ſin(v)": 0,
    "𝐯": 0,
    "ｓｉｎ(v)": 0,
    "v+１": 2,
    "v+٣": 2,
    "v × 2": 2,
    "v−1": 1,
    "v\u200b": 1,
    "v+\ud800": 2,
    "v +": 3,
    "+": 1,
    "* v": 0,
    "v v": 2,
    "(v": 0,
    "v)": 1,
    "v) + (v": 1,
    "sin(v": 3,
    "v\nv": 2,
    "v ! v": 2,
    "v <> v": 3,
    "v =< 1": 2,
    "1..real": 2,
    "1.2.3": 3,
    "(" * 60 + "v" + ")" * 60: 50,
    "-" * 900 + "v": None,
    "+-" * 400 + "v": None,
    "v**" * 300 + "v": None,
    "not " * 240 + "v": None,
    "abs(" * 200 + "v" + ")" * 200: None,
    "v+" * 400 + "v": None,
    "v<" * 499 + "v": None,
    "sin(" * 40 + "-" * 70 + "v" + ")" * 40: None,
    "v" * 1001: 1000,
    "1+" * 100_000 + "1": 1000,
    "(" * 1_000_000: 1000,
    "9" * 1_000_000: 1000,
    "a" * 999: 0,
    "if": 0,
    "@": 0,
    "$v": 0,
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:20]))
def test_refused_at_once_with_a_place(text: str) -> None:
    start = time.thread_time()
    with pytest.raises(FormulaError) as caught:
        compile_formula(text, "Color space")
    assert time.thread_time() - start < 5  # of CPU; what grows without bound takes hours
    error = caught.value
    assert error.field == "Color space"
    assert error.remedy
    assert error.position is not None
    assert 0 <= error.position <= len(text)
    if REFUSED[text] is not None:
        assert error.position == REFUSED[text]
    assert str(error)


HARMLESS = ["9**9**9**9**9", "9999999999**9999999999", "1e999*v", "0**-1", "exp(exp(exp(exp(v*99))))", "v%0", "v//0",
            "(sin)(v)", "v<" * 240 + "v"]  # fmt: skip


@pytest.mark.parametrize("text", HARMLESS)
def test_huge_numbers_cost_nothing(text: str) -> None:
    tracemalloc.start()
    start = time.thread_time()
    result = compile_formula(text)(V)
    assert time.thread_time() - start < 5  # of CPU; what grows without bound takes hours
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert result.dtype == np.float32


def test_numbers_do_not_lend_precision() -> None:
    assert compile_formula("(v+16777216)-16777216")(np.float32(1)) == 0
    assert compile_formula("0.1")(V) == np.float32(0.1)


def test_position_counts_over_lines_and_spaces() -> None:
    with pytest.raises(FormulaError) as caught:
        compile_formula("  v +\n\tfoo(v)")
    assert caught.value.position == 7
    assert caught.value.source is not None
    assert caught.value.source.render().splitlines() == ["   foo(v)", "   ^"]


def test_remedies() -> None:
    for text, remedy in {
        "maximun(v,0)": "maximum",
        "amax(v)": "maximum",
        "v and v": "logical_and",
        "v if v": "a if condition else b",
        "mp.sin(v)": "np and numpy",
        "interp(v, 0, 1)": "one number at a time",
        "v[0]": "one number at a time",
        "v(v)": "v*(v+1)",
        "v^2": "**",
        "clip(v, a_max=1, a_min=0)": "no names",
    }.items():
        with pytest.raises(FormulaError) as caught:
            compile_formula(text)
        assert remedy in caught.value.remedy


def test_argument_is_not_changed() -> None:
    v = V.copy()
    compile_formula("abs(-v)*2+v")(v)
    np.testing.assert_array_equal(v, V)


PIECES = ["v", "pi", "sin(", "clip(", "(", ")", "+", "-", "*", "**", "//", "<", "==", ",", "1", "0.5", "1e9", " ",
          "and", "not ", "lambda", ".", "\n", "where(", "'", "é", "if", "else", "="]  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES), max_size=14).map("".join)))
def test_any_text_is_a_formula_or_an_error_with_a_place(text: str) -> None:
    places: list[int | None] = []
    try:
        formula = compile_formula(text)
    except FormulaError as error:
        places.append(error.position)
        str(error)
    else:
        assert isinstance(formula, Formula)
        result = formula(V)
        assert result.dtype == np.float32
        assert result.shape in ((), V.shape)
    assert all(place is not None and 0 <= place <= len(text) for place in places)
