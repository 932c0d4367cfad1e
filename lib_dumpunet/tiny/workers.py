"""Several single-threaded processes that train one model: on a few shared cores faster than threads are.

Every worker holds the whole model and takes its own pictures; gradients are averaged, and the work of the
optimizer is dealt out.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn


@dataclass(frozen=True)
class Worker:
    """One process among those that train together."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the worker that reports and writes files."""
        return self.rank == 0

    def average(self, gradients: Sequence[Tensor]) -> None:
        """Replace gradients by their mean over the workers."""
        if self.count == 1:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def share_out(self, sizes: Sequence[int]) -> list[int]:
        """Deal items out by size, the largest first, each to whoever has least; return each one's owner."""
        load, owners = [0] * self.count, [0] * len(sizes)
        for item in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
            owners[item] = load.index(min(load))
            load[owners[item]] += sizes[item]
        return owners

    def spread(self, tensors: Sequence[Tensor], owners: Sequence[int]) -> None:
        """Bring every worker each tensor as its owner has it."""
        if self.count == 1:
            return
        for rank in range(self.count):
            theirs = [tensor for tensor, owner in zip(tensors, owners, strict=True) if owner == rank]
            if not theirs:
                continue
            flat = torch.cat([tensor.flatten() for tensor in theirs])
            dist.broadcast(flat, rank)
            for tensor, new in zip(theirs, flat.split([t.numel() for t in theirs]), strict=True):
                tensor.copy_(new.view_as(tensor))


def launch(stage: Callable[[Worker, Any], None], options: Any, count: int) -> None:
    """Run a stage on `count` workers of one thread each; one worker alone keeps torch's threads."""
    if count == 1:
        stage(Worker(), options)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn(_enter, (stage, options, count, port), nprocs=count)


def _enter(rank: int, stage: Callable[[Worker, Any], None], options: Any, count: int, port: int) -> None:
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=count)
    try:
        stage(Worker(rank, count), options)
    finally:
        dist.destroy_process_group()
