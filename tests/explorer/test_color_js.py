"""The page's colours equal Python's: the same pixels and messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lib_dumpunet.explorer
from lib_dumpunet.errors import FormulaError
from lib_dumpunet.explorer.file import SCRIPTS as ALL_SCRIPTS
from lib_dumpunet.explorer.file import grammar_script
from lib_dumpunet.explorer.maps import Quantised, dequantise
from lib_dumpunet.image.colorize import colorize
from lib_dumpunet.image.expression import compile_channels, compile_formula
from lib_dumpunet.image.functions import FUNCTIONS
from lib_dumpunet.settings import METHODS, TRANSFORMS, ColorSettings

PAGE = Path(lib_dumpunet.explorer.__file__).parent / "page"
SCRIPTS = ALL_SCRIPTS[: ALL_SCRIPTS.index("color.js") + 1]
LEVELS = np.arange(256, dtype=np.uint8)
RANGES = [
    (-1.0, 2.5),
    (-3.0, -0.1),
    (0.25, 7.0),
    (-1e-6, 1e-6),
    (-1e5, 3e5),
    (1.5, 1.5),
    (0.0, 0.0),
    (-0.1, 1 / 3),
]

PAINT = """([colors, ranges]) => colors.map((color) => {
    const painter = DumpUNetColor.compile(color);
    return ranges.map(([low, high]) => [...painter.table(low, high)]);
})"""
COMPLAIN = """(texts) => texts.map((text) => {
    try { DumpUNetColor.compile({method: "rgb", transform: "auto01", formula: ["v", text, "v"]}); return null; }
    catch (error) { return [error.field, error.problem, error.remedy, error.position]; }
})"""
EXACT = [
    "v", "-v", "+v", "2*v-1", "v/3", "v//0.3", "v%0.3", "-v%0.4", "v//0", "v%0", "v**2", "-v**2", "2**-1",
    "v**3**0.5", "v<0.5", "0.2<v<=0.7", "v==v", "v!=0", "abs(v)", "absolute(v)", "fabs(v)",
    "where(v>0, v, 0.5)", "where(v, 1, 0)", "clip(v, 0, 1)", "minimum(v, 0.5)", "maximum(v, 0.2)",
    "fmin(v, 0.5)", "fmax(v, log(-1))", "sqrt(abs(v))", "square(v)", "floor(3*v)/3", "ceil(3*v)/3",
    "rint(3*v)/3", "trunc(3*v)/3", "fix(3*v)/3", "round(v, 1)", "around(v*7)/7", "sign(v)", "signbit(v)",
    "heaviside(v, 0.5)", "copysign(0.5, v)", "reciprocal(v)", "fmod(v, 0.3)", "mod(v, 0.3)",
    "remainder(v, -0.3)", "floor_divide(v, 0.1)/20", "add(v, 0.1)", "subtract(v, 0.1)", "multiply(v, 0.7)",
    "divide(v, 3)", "true_divide(v, 3)", "negative(v)", "positive(v)", "equal(v, 0.5)", "not_equal(v, 0)",
    "less(v, 0.4)", "less_equal(v, 0.4)", "greater(v, 0.4)", "greater_equal(v, 0.4)", "logical_and(v>0, v<0.5)",
    "logical_or(v<0, v>0.5)", "logical_xor(v>0, v>0.5)", "logical_not(v)", "isnan(v)", "isfinite(1/v)",
    "isinf(1/v)", "nan_to_num(1/v)", "nextafter(v, 1)", "spacing(v)*1e6", "deg2rad(v*57)", "radians(v*57)",
    "max(v, 0.2)", "min(v, 0.5)", "np.abs(v)", "numpy.clip(v, 0, np.pi)", "v if v > 0 else 0.5", "v if v else -v",
    "(1 if v > 0.5 else 0.5 if v > 0 else v)/2", "abs(v if v < 0.3 else 0.1)", "where(v, 1 if v else 0, 2)",
    "(0/0)//2", "(0/0)%2", "v//(0/0)", "v%(0/0)", "(v/0)//1", "(v/0)%1", "v//(1/0)", "v%(1/0)", "-v%(1/0)",
    "rad2deg(v)/90", "degrees(v)/90", "pi/4", "e/3", "(v)", "((v+1))/2", "1.e-1*v", ".5", "5e-1", "00",
]  # fmt: skip
NEAR = [
    "sin(9*v)", "cos(9*v)", "tan(v)", "arcsin(v)", "arccos(v)", "arctan(3*v)", "arctan2(v, 0.3)", "asin(v)",
    "acos(v)", "atan(v)", "atan2(v, 2)", "sinh(v)", "cosh(v)-1", "tanh(3*v)", "arcsinh(v)", "arccosh(1+abs(v))",
    "arctanh(v/2)", "asinh(v)", "acosh(1+abs(v))", "atanh(v/2)", "exp(v)/3", "exp2(v)/3", "expm1(v)",
    "log(abs(v)+1)", "log2(abs(v)+1)", "log10(abs(v)+1)", "log1p(abs(v))", "logaddexp(v, 0.1)",
    "logaddexp2(v, 0.1)", "cbrt(v)", "hypot(v, 0.3)", "power(abs(v), 0.7)", "pow(abs(v), 1.3)",
    "float_power(abs(v), 0.5)", "sinc(v)", "abs(v)**0.3", "1/(1+exp(-9*v))",
]  # fmt: skip
WRONG = [
    "", "  ", "v.x", "2v", "v v", "v+", "*v", "(v", "v)", "sin", "sin()", "clip(v, 0)", "round(v, 1, 2)",
    "max(v)", "max(v, 0, 1)", "amax(v)", "sinn(v)", "qqqq", "v and 1", "np.interp(v, 0, 1)", "mean(v)", "v if v",
    "v else 1", "v if v if v else 1 else 2", "(v if v) else 1", "sin(v if v, 1)", "if v else 1", "v if else 1",
    "v if v else", "v(v)", "pi(v)", "np . abs(v)", "np.abs", "np.qqq(v)", "x.np.abs(v)", "np", "mp.abs(v)", "v v if v",
    "v = 1", "v ^ 2", "v & 1", "v | 1", "~v", "!v",
    "a;b", "'v'", "v, 1", "(v, 1)", "(v,)", "()", "2(v+1)", "(v)(v)", "01", "v+007", "lambda", "None", "v[0]",
    "v\\n", "ｖ", "x", "V", "PI", "sin(v,, v)", "sin(*v)", "1..2", "v" * 1001, "(" * 51 + "v" + ")" * 51,
    "-" * 120 + "v", "+".join(["v"] * 300), "v )( v", "sin cos", "clip(v 0 1)", "abs(v)(v)", "sin(v).x", "e(v)",
    "v(1)", "3e", "1_000", "arctan3(v, 1)", "sqr(v)", "v\n+", "(v, 1)+2", "2*(v, 1)", "sin((v, v))",
]  # fmt: skip


@pytest.fixture(scope="module")
def script(browser: Any) -> Iterator[Any]:
    page = browser.new_page()
    page.add_script_tag(content=grammar_script())
    for script in SCRIPTS:
        page.add_script_tag(path=str(PAGE / script))
    yield page
    page.close()


def test_the_page_has_the_functions_of_python(script: Any) -> None:
    assert set(script.evaluate("Object.keys(DumpUNetNumbers.FUNCTIONS)")) == set(FUNCTIONS)


def python_tables(color: ColorSettings, ranges: list[tuple[float, float]]) -> np.ndarray:
    """Pixels "range level 3" of all levels."""
    low, high = (np.array(ends, np.float32) for ends in zip(*ranges, strict=True))
    maps = Quantised(np.broadcast_to(LEVELS, (len(ranges), 1, 256)), low, high)
    values = torch.from_numpy(dequantise(maps))
    if color.transform.startswith("auto"):
        # A constant map has no levels but the first.
        values[low == high] = values[low == high][..., :1]
    pixels = colorize(values, color)[:, 0]
    return np.repeat(pixels[..., None], 3, -1) if pixels.ndim == 2 else pixels


def page_tables(script: Any, colors: list[ColorSettings], ranges: list[tuple[float, float]]) -> np.ndarray:
    """The page's pixels, "color range level 3"."""
    rounded = [[float(np.float32(end)) for end in ends] for ends in ranges]
    tables = script.evaluate(PAINT, [[asdict(color) for color in colors], rounded])
    packed = np.array(tables, np.uint32)
    assert (packed >> 24 == 255).all()
    return np.stack([packed >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8)


def compare(
    script: Any, colors: list[ColorSettings], ranges: list[tuple[float, float]] = RANGES
) -> np.ndarray:
    """The difference between the two, in levels, "color range level 3"."""
    wanted = np.stack([python_tables(color, ranges) for color in colors])
    return np.abs(wanted.astype(int) - page_tables(script, colors, ranges))


def grey(formula: str) -> ColorSettings:
    return ColorSettings("rgb", "auto11", formula=(f"({formula})", f"1-({formula})", f"({formula})/2+0.5"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_pixels_are_those_of_python(script: Any, method: str, transform: str) -> None:
    colors = [ColorSettings(method, transform)]
    if transform == "linear":
        colors += [ColorSettings(method, transform, low, high) for low, high in ((0.5, 2), (-3, -1), (0, 1))]
    if transform == "sigmoid":
        colors += [
            ColorSettings(method, transform, gain=gain, offset=x) for gain, x in ((0.1, 3), (10, -0.2))
        ]
    difference = compare(script, colors)
    if transform == "sigmoid":  # NumPy's exp is not rounded correctly in every last bit
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.005
    else:
        assert difference.max() == 0


def test_formulas_name_every_function() -> None:
    text = " ".join([*EXACT, *NEAR])
    assert [name for name in FUNCTIONS if f"{name}(" not in text] == []


def test_formulas_of_exact_functions_give_the_same_pixels(script: Any) -> None:
    difference = compare(script, [grey(text) for text in EXACT])
    assert {text: int(d.max()) for text, d in zip(EXACT, difference, strict=True) if d.max()} == {}


def test_formulas_of_other_functions_differ_by_one_level_at_most(script: Any) -> None:
    difference = compare(script, [grey(text) for text in NEAR])
    assert {text: int(d.max()) for text, d in zip(NEAR, difference, strict=True) if d.max() > 1} == {}
    assert (difference > 0).mean() < 0.005


def test_hsl_formulas(script: Any) -> None:
    spaces = [
        ("v", "0.5", "0.5"),
        ("(2+v)/3", "abs(v)", "abs(v)"),
        ("3*v", "v", "1-v"),
        ("0/0", "0", "v"),
        ("-v", "1", "0.25"),
    ]
    assert compare(script, [ColorSettings("hsl", "auto11", formula=space) for space in spaces]).max() == 0


VALUES = st.sampled_from(["v", "0.5", "2", "pi", "0", "-1.5"])
FORMULAS = st.recursive(
    VALUES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "<", ">=", "=="]), inner).map(
            lambda t: f"({t[0]}{t[1]}{t[2]})"
        ),
        inner.map(lambda text: f"-{text}"),
        st.tuples(st.sampled_from(["abs", "floor", "sqrt", "sign"]), inner).map(lambda t: f"{t[0]}({t[1]})"),
        st.tuples(inner, inner, inner).map(lambda t: f"where({t[0]}, {t[1]}, {t[2]})"),
        st.tuples(inner, inner).map(lambda t: f"maximum({t[0]}, {t[1]})"),
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=30)
@given(st.lists(FORMULAS, min_size=20, max_size=20))
def test_any_arithmetic_gives_the_same_pixels(script: Any, formulas: list[str]) -> None:
    colors = [ColorSettings("rgb", "auto11", formula=(text, "v", "v")) for text in formulas]
    difference = compare(script, colors, RANGES[:3])
    assert [text for text, d in zip(formulas, difference, strict=True) if d.max()] == []


def test_sizes_of_differences_are_scaled_by_what_occurs(script: Any) -> None:
    levels = [200, 10, 90, 255, 0]
    low, high = float(np.float32(-0.7)), float(np.float32(1.9))
    table = script.evaluate(
        """([low, high, levels]) => [...DumpUNetColor.compile({method: "white-black", transform: "auto01"})
            .table(low, high, true, Uint8Array.from(levels))]""",
        [low, high, levels],
    )
    maps = Quantised(np.array([[levels]], np.uint8), np.float32([low]), np.float32([high]))
    wanted = colorize(torch.from_numpy(dequantise(maps)).abs(), ColorSettings("white-black"))
    assert [table[level] & 255 for level in levels] == wanted[0, 0].tolist()


def test_a_map_without_a_range_is_black(script: Any) -> None:
    table = script.evaluate(
        '() => [...DumpUNetColor.compile({method: "hsl", transform: "auto01"}).table(NaN, NaN)]'
    )
    assert set(table) == {0xFF000000}


def test_mistakes_are_told_in_the_same_words(script: Any) -> None:
    told = dict(zip(WRONG, script.evaluate(COMPLAIN, WRONG), strict=True))
    for text in WRONG:
        with pytest.raises(FormulaError) as caught:
            compile_channels(ColorSettings("rgb", formula=("v", text, "v")))
        error = caught.value
        assert told[text] == [error.field, error.problem, error.remedy, error.position], text


def test_what_python_reads_the_page_reads(script: Any) -> None:
    texts = [
        " v ",
        "v\t+\n1",
        "- - v",
        "-+v",
        "2 ** - 1",
        "sin ( v )",
        "clip(v, 0, 1,)",
        "1<2<3",
        "(v)",
        "1e5",
        "09.5",
        "5.",
        "0.0",
    ]
    for text in texts:
        compile_formula(text)
    assert script.evaluate(COMPLAIN, texts) == [None] * len(texts)
