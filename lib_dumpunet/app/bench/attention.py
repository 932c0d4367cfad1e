"""Measure what capturing attention costs in time and memory, with a U-Net of SD 1.5's real width."""

from __future__ import annotations

from functools import partial

from lib_dumpunet.app.bench.capture import Forget
from lib_dumpunet.app.bench.memory import peak_of
from lib_dumpunet.app.bench.rows import Row
from lib_dumpunet.app.bench.sampling import PLAIN, WIDTHS, Watch, added_seconds, sampling_step
from lib_dumpunet.kinds import Kind
from lib_dumpunet.models.model import Model
from lib_dumpunet.plan import AttentionRequest, Plan

ROUNDS = 3
FEW, MANY = 2, 6  # numbers of steps whose peak memory is compared
ONE_LAYER = "OUT09"  # a block with a 64x64 layer

# Each variant runs in its own process, because a peak never comes down again.
PROGRAM = """
import sys
from lib_dumpunet.app.bench.attention import run_for_memory
from lib_dumpunet.app.bench.memory import own_peak
run_for_memory(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
print(own_peak())
"""


def measure_attention(rounds: int = ROUNDS, widths: tuple[int, ...] = WIDTHS) -> list[Row]:
    """Compare CPU seconds of a step, and peak memory of several, with plain sampling."""
    added = _added(rounds, widths)
    plain, few, many = (
        _peak(way, steps, widths[0]) for way, steps in ((PLAIN, FEW), ("words", FEW), ("words", MANY))
    )
    looks = _peak("self", FEW, widths[0])
    return [
        Row("words of all layers, added to a step", added["words"], "%", 2, at_least=False),
        Row(f"Q*K of {ONE_LAYER}, added to a step", added["qk"], "%", 2, at_least=False),
        Row("peak memory of words, above plain sampling", few - plain, "MiB", 64, at_least=False),
        Row(f"peak memory of words, {MANY} steps above {FEW}", many - few, "MiB", 16, at_least=False),
        Row(f"peak memory of self-attention of {ONE_LAYER}", looks - plain, "MiB", 300, at_least=False),
    ]


def words_beside_plain(steps: int, widths: tuple[int, ...]) -> tuple[float, float]:
    """Measure what words add to sampling: CPU seconds in percent, and peak memory in MiB."""
    percent = _added(ROUNDS, widths)["words"]
    return percent, _peak("words", steps, widths[0]) - _peak(PLAIN, steps, widths[0])


def _added(rounds: int, widths: tuple[int, ...]) -> dict[str, float]:
    """Measure time; the U-Net is freed on return, because it takes 3.4 GB, like each measured process."""
    unet, run = sampling_step(widths)
    return added_seconds(run, {way: partial(watch_of, unet, way) for way in ("words", "qk")}, rounds)


def watch_of(unet: Model, way: str) -> Watch:
    """Return what to capture in a variant."""
    cross = unet.attending
    wants: dict[str, tuple[tuple[str, ...], frozenset[Kind]]] = {
        "words": (cross, frozenset({"word"})),
        "qk": ((ONE_LAYER,), frozenset({"qk"})),
        "self": ((ONE_LAYER,), frozenset({"self", "pooled_self"})),
    }
    blocks, kinds = wants[way]
    return Watch(Plan(attention=AttentionRequest(blocks, range(1, 1000), kinds)), (Forget(),))


def run_for_memory(way: str, steps: int, width: int) -> None:
    """Sample a variant, in its own process."""
    unet, run = sampling_step((width, 2 * width, 4 * width, 4 * width))
    run(None if way == PLAIN else watch_of(unet, way), steps=steps)


def _peak(way: str, steps: int, width: int) -> float:
    return peak_of(PROGRAM, [way, str(steps), str(width)])
