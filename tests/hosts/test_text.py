"""Prompts are encoded as in the webui, and plain ones bit for bit as by the pipeline."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lib_dumpunet.hosts.diffusers.chunks import CHUNK, Piece, lay_out
from lib_dumpunet.hosts.diffusers.emphasis import Run, parse_emphasis
from lib_dumpunet.hosts.diffusers.text import chunk_count, encode_prompts
from lib_dumpunet.prompt.words import Token, find_word, labels
from tests.pipelines import XL_WIDTHS, load_sd1

COMMA = 0


# -- markup


def runs(*pairs: tuple[str, float]) -> tuple[tuple[Run, ...], ...]:
    """Make a text of one section."""
    return (tuple(Run(*pair) for pair in pairs),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", runs()),
        ("a red star", runs(("a red star", 1))),
        ("(a)", runs(("a", 1.1))),
        ("[a]", runs(("a", 1 / 1.1))),
        ("x (a:1.3), y", runs(("x ", 1), ("a", 1.3), (", y", 1))),
        ("(a: 0.5 )", runs(("a", 0.5))),
        ("(a:-.5)", runs(("a", -0.5))),
        ("(a:2.)", runs(("a", 2))),
        ("(a:0)", runs(("a", 0))),
        ("((a))", runs(("a", 1.1 * 1.1))),
        ("(a (b:2) c)", runs(("a ", 1.1), ("b", 2.2), (" c", 1.1))),
        ("[a (b) c:3]", runs(("a ", 1 / 1.1), ("b", 1.1 / 1.1), (" c:3", 1 / 1.1))),
        ("[(a)]", runs(("a", 1))),
        ("(a:b:1.2)", runs(("a:b", 1.2))),
        ("(w:1.2)", runs(("w", 1.2))),
        (":1.2)", runs((":1.2)", 1))),
        ("a:1.2", runs(("a:1.2", 1))),
        ("(a:1.2.3)", runs(("a:1.2.3", 1.1))),
        ("(a:x)", runs(("a:x", 1.1))),
        ("(a", runs(("a", 1.1))),
        ("x [a (b", runs(("x ", 1), ("a ", 1 / 1.1), ("b", 1.1 / 1.1))),
        ("((a)", runs(("a", 1.1 * 1.1))),
        ("a) b]", runs(("a) b]", 1))),
        ("(a])", runs(("a]", 1.1))),
        (r"\(a\) \[b\] c\\d", runs((r"(a) [b] c\d", 1))),
        (r"(a\):1.3)", runs(("a)", 1.3))),
        (r"a\b", runs(("ab", 1))),
        ("a\\", runs(("a", 1))),
        ("（a：1.3） ［b］", runs(("（a：1.3） ［b］", 1))),
        ("（(赤い猫:1.5)）", runs(("（", 1), ("赤い猫", 1.5), ("）", 1))),
        ("()", runs()),
        ("(:1.2)", runs()),
        ("a\n(b)\n", runs(("a\n", 1), ("b", 1.1), ("\n", 1))),
        ("(a)(b)", runs(("ab", 1.1))),
        ("BREAKER aBREAK break B BR", runs(("BREAKER aBREAK break B BR", 1))),
        ("BREAK", ((), ())),
        ("a BREAK b", ((Run("a ", 1),), (Run(" b", 1),))),
        ("(a BREAK b:2)", ((Run("a ", 2),), (Run(" b", 2),))),
        ("a,BREAK\nBREAK,b", ((Run("a,", 1),), (Run("\n", 1),), (Run(",b", 1),))),
    ],
)
def test_markup(text: str, expected: tuple[tuple[Run, ...], ...]) -> None:
    sections = parse_emphasis(text)
    assert [[run.text for run in section] for section in sections] == [
        [run.text for run in section] for section in expected
    ]
    weights = [run.weight for section in sections for run in section]
    assert weights == pytest.approx([run.weight for section in expected for run in section], rel=1e-12)


@given(
    st.text(st.sampled_from("ab:.1,猫\n \\()[]") | st.characters()).filter(lambda text: "BREAK" not in text)
)
def test_any_text_can_be_escaped(text: str) -> None:
    (section,) = parse_emphasis(re.sub(r"[\\()\[\]]", r"\\\g<0>", text))
    assert "".join(run.text for run in section) == text
    assert {run.weight for run in section} <= {1.0}


@given(st.text("ab:.12 \\()[]"))
def test_markup_loses_nothing_but_markup(text: str) -> None:
    (section,) = parse_emphasis(text)
    kept = "".join(run.text for run in section)
    assert "".join(re.findall("[ab]", kept)) == "".join(re.findall("[ab]", text))
    assert re.sub(r":\s*[+-]?[\d.]+\s*\)|[\\()\[\]]", "", text) == re.sub(
        r":\s*[+-]?[\d.]+\s*\)|[\\()\[\]]", "", kept
    ) or set(text) & set("\\:")


# -- chunks


def pieces(numbers: Sequence[int]) -> list[Piece]:
    return [Piece(number, 1.0) for number in numbers]


def words(count: int, *commas: int) -> list[Piece]:
    """Make ``count`` pieces, with commas at some positions."""
    return pieces([COMMA if place in commas else 1 + place for place in range(count)])


@pytest.mark.parametrize(
    ("sections", "lengths"),
    [
        ([words(0)], [0]),
        ([words(1)], [1]),
        ([words(75)], [75]),
        ([words(76)], [75, 1]),
        ([words(150)], [75, 75]),
        ([words(151)], [75, 75, 1]),
        ([words(75, 60)], [75]),
        ([words(76, 55)], [56, 20]),
        ([words(76, 54)], [75, 1]),
        ([words(76, 74)], [75, 1]),
        ([words(76, 60, 70)], [71, 5]),
        ([words(76, 60, 75)], [75, 1]),
        ([words(151, 60)], [61, 75, 15]),
        ([words(151, 60, 130)], [61, 70, 20]),
        ([words(3), words(4)], [3, 4]),
        ([words(3), words(0), words(4)], [3, 0, 4]),
        ([words(0), words(4)], [0, 4]),
        ([words(3), words(0)], [3]),
        ([words(0), words(0)], [0]),
        ([words(76, 60), words(76)], [61, 15, 75, 1]),
    ],
)
def test_layout(sections: list[list[Piece]], lengths: list[int]) -> None:
    assert [len(chunk) for chunk in lay_out(sections, COMMA)] == lengths


@given(st.lists(st.lists(st.sampled_from([COMMA, 1, 2, 3]), max_size=400), min_size=1, max_size=4))
def test_layout_neither_loses_nor_moves_pieces(sections: list[list[int]]) -> None:
    numbered = [[Piece(number, place) for place, number in enumerate(section)] for section in sections]
    chunks = lay_out(numbered, COMMA)
    assert [piece for chunk in chunks for piece in chunk] == [
        piece for section in numbered for piece in section
    ]
    assert all(len(chunk) <= CHUNK for chunk in chunks)
    assert chunks


# -- embeddings


def own_embeds(pipe: Any, prompts: list[str]) -> tuple[Tensor, Tensor | None]:
    """Encode prompts as the pipeline does."""
    with torch.no_grad():
        if hasattr(pipe, "text_encoder_2"):
            embeds, _, pooled, _ = pipe.encode_prompt(prompts, None, "cpu", 1, False)
            return embeds, pooled
        return pipe.encode_prompt(prompts, "cpu", 1, False)[0], None


PLAIN = ["a red star", "", "blue circle, left of a " + "red " * 60, "wow!! 赤い猫", "red " * 75]


@pytest.mark.parametrize("name", ["tiny", "xl"])
@pytest.mark.parametrize("prompts", [[prompt] for prompt in PLAIN] + [PLAIN])
def test_plain_prompts_give_the_pipelines_own_bits(
    request: pytest.FixtureRequest, name: str, prompts: list[str]
) -> None:
    pipe = request.getfixturevalue(name)
    encoded = encode_prompts(pipe, prompts)
    embeds, pooled = own_embeds(pipe, prompts)
    assert torch.equal(encoded.embeds, embeds)
    assert encoded.embeds.dtype == embeds.dtype
    assert not encoded.embeds.requires_grad
    if pooled is None:
        assert encoded.pooled is None
    else:
        assert encoded.pooled is not None
        assert torch.equal(encoded.pooled, pooled)


def test_half_precision_gives_the_pipelines_own_bits() -> None:
    pipe = load_sd1(dtype="bf16")
    embeds, _ = own_embeds(pipe, ["a red star"])
    encoded = encode_prompts(pipe, ["a red star"])
    assert torch.equal(encoded.embeds, embeds)
    heavy = encode_prompts(pipe, ["a (red:1.5) star"]).embeds
    assert heavy.dtype == embeds.dtype == torch.bfloat16
    assert not torch.equal(heavy, embeds)


def test_attention_mask_is_the_pipelines() -> None:
    pipe = load_sd1()
    unmasked = encode_prompts(pipe, ["a red star", "star"]).embeds
    pipe.text_encoder.config.use_attention_mask = True
    embeds, _ = own_embeds(pipe, ["a red star", "star"])
    assert torch.equal(encode_prompts(pipe, ["a red star", "star"]).embeds, embeds)
    assert not torch.equal(unmasked, embeds)


def test_xl_without_its_first_encoder(xl: Any) -> None:
    whole = encode_prompts(xl, ["a (red) star"])
    first, xl.text_encoder = xl.text_encoder, None
    try:
        alone = encode_prompts(xl, ["a (red) star"])
    finally:
        xl.text_encoder = first
    assert torch.equal(alone.embeds, whole.embeds[..., XL_WIDTHS[0] :])
    assert alone.pooled is not None
    assert whole.pooled is not None
    assert torch.equal(alone.pooled, whole.pooled)


@pytest.mark.parametrize("name", ["tiny", "xl"])
def test_a_weight_acts_on_its_tokens_and_the_mean_stays(request: pytest.FixtureRequest, name: str) -> None:
    pipe = request.getfixturevalue(name)
    text = "a red star above a blue circle"
    plain = encode_prompts(pipe, [text])
    heavy = encode_prompts(pipe, [text.replace("star", "(star:1.5)").replace("blue", "[blue]")])
    assert heavy.tokens == plain.tokens
    (star,), (blue,) = (find_word(plain.tokens[0], word).columns for word in ("star", "blue"))
    widths = XL_WIDTHS if name == "xl" else (plain.embeds.shape[-1],)
    for before, after in zip(plain.embeds.split(widths, -1), heavy.embeds.split(widths, -1), strict=True):
        torch.testing.assert_close(after.mean(), before.mean(), rtol=1e-4, atol=1e-6)
        ratios = (after * before).sum(-1)[0] / before.square().sum(-1)[0]
        torch.testing.assert_close(after[0], before[0] * ratios[:, None], rtol=1e-4, atol=1e-6)
        relative = ratios / ratios[0]
        expected = torch.ones(77)
        expected[star], expected[blue] = 1.5, 1 / 1.1
        torch.testing.assert_close(relative, expected, rtol=1e-4, atol=1e-4)
    if name == "xl":
        assert torch.equal(heavy.pooled, plain.pooled)  # type: ignore[arg-type]


def test_a_prompt_does_not_depend_on_those_beside_it(tiny: Any) -> None:
    texts = ["a (red:1.4) star", "a blue circle", "[[green]] " * 30]
    together = encode_prompts(tiny, texts).embeds
    for text, row in zip(texts, together, strict=True):
        torch.testing.assert_close(encode_prompts(tiny, [text]).embeds[0], row)


def test_weights_count_by_chunk(tiny: Any) -> None:
    """A chunk without emphasis stays as it is, to the bit."""
    plain = encode_prompts(tiny, ["red star BREAK blue circle"]).embeds
    heavy = encode_prompts(tiny, ["red star BREAK (blue:2) circle"]).embeds
    assert torch.equal(heavy[:, :77], plain[:, :77])
    assert not torch.equal(heavy[:, 77:], plain[:, 77:])
    torch.testing.assert_close(heavy[:, 77:].mean(), plain[:, 77:].mean())


@pytest.mark.parametrize("name", ["tiny", "xl"])
def test_long_prompts_are_their_chunks_joined(request: pytest.FixtureRequest, name: str) -> None:
    pipe = request.getfixturevalue(name)
    long = "red " * 75 + "star " * 74 + "circle blue"
    encoded = encode_prompts(pipe, [long, "blue BREAK star"])
    first, pooled = own_embeds(pipe, ["red " * 75, "blue"])
    second, _ = own_embeds(pipe, ["star " * 74 + "circle", "star"])
    third, _ = own_embeds(pipe, ["blue", ""])
    assert torch.equal(encoded.embeds, torch.cat([first, second, third], dim=1))
    if pooled is not None:
        assert torch.equal(encoded.pooled, pooled)  # type: ignore[arg-type]
    for tokens in encoded.tokens:
        assert len(tokens) == encoded.embeds.shape[1] == 3 * 77
        assert [column for column, token in enumerate(tokens) if token.mark == "start"] == [0, 77, 154]
    assert find_word(encoded.tokens[0], "red star").columns == (75, 78)
    assert find_word(encoded.tokens[0], "blue").columns == (155,)
    assert find_word(encoded.tokens[1], "star").columns == (78,)
    assert encoded.tokens[1][154:] == (Token(mark="start"), Token(mark="end"), *[Token(mark="pad")] * 75)


def test_the_comma_of_the_tokenizer_is_known(tiny: Any) -> None:
    (tokens,) = encode_prompts(tiny, ["red " * 70 + ", blue circle " + "star " * 5]).tokens
    assert labels(tokens)[70:76] == ("red", ",", "<end>", "<pad>", "<pad>", "<pad>")
    assert labels(tokens)[77:80] == ("<start>", "blue", "circle")


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 1), ("red " * 75, 1), ("red " * 76, 2), ("red BREAK", 1), ("red BREAK star", 2), ("BREAK star", 2)],
)
def test_chunk_count(tiny: Any, text: str, count: int) -> None:
    assert chunk_count(tiny, text) == count
    assert encode_prompts(tiny, [text]).embeds.shape[1] == 77 * count


def test_plain_prompts_are_not_rescaled_beside_others() -> None:
    """An output with mean zero cannot be rescaled, so it shows if that is tried."""
    pipe = load_sd1()
    for name, weight in pipe.text_encoder.named_parameters():
        if "final_layer_norm" in name:
            torch.nn.init.zeros_(weight)
    assert not encode_prompts(pipe, ["a red star", "a (red:2) star"]).embeds[0].any()


def test_textual_inversion_of_several_vectors() -> None:
    pipe = load_sd1()
    width = pipe.text_encoder.config.hidden_size
    torch.manual_seed(0)
    pipe.load_textual_inversion({"<style>": torch.randn(2, width)}, token="<style>")
    encoded = encode_prompts(pipe, ["a <style> star"])
    assert torch.equal(encoded.embeds, own_embeds(pipe, ["a <style> star"])[0])
    assert labels(encoded.tokens[0])[:6] == ("<start>", "a", "<style>", "…", "star", "<end>")
    (heavy,) = encode_prompts(pipe, ["a (<style>:1.5) star"]).tokens
    assert heavy == encoded.tokens[0]


def test_long_prompts_are_no_reason_for_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    pipe = load_sd1()  # a tokenizer warns only once
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        encode_prompts(pipe, ["red " * 200])
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.records == []
