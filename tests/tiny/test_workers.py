"""Workers: what each one finds out, all of them know."""

from __future__ import annotations

from pathlib import Path

import torch

from lib_dumpunet.tiny.workers import Worker, launch


def exchange(worker: Worker, folder: Path) -> None:
    """Average a gradient and spread two tensors of different owners; each worker writes what it then has."""
    gradient = torch.full((2, 2), float(worker.rank))
    worker.average([gradient])
    tensors = [torch.full((3,), 10.0 + worker.rank), torch.full((1, 2), 20.0 + worker.rank)]
    worker.spread(tensors, owners=[1, 0])
    torch.save([gradient, *tensors], folder / f"{worker.rank}.pt")


def test_two_workers_share_gradients_and_weights(tmp_path: Path) -> None:
    launch(exchange, tmp_path, 2)
    for rank in (0, 1):
        gradient, first, second = torch.load(tmp_path / f"{rank}.pt")
        assert gradient.tolist() == [[0.5, 0.5], [0.5, 0.5]]
        assert first.tolist() == [11, 11, 11]
        assert second.tolist() == [[20, 20]]


def test_one_worker_stays_in_this_process(tmp_path: Path) -> None:
    seen: list[Worker] = []
    launch(lambda worker, _: seen.append(worker), tmp_path, 1)
    assert seen == [Worker(0, 1)]


def test_work_is_shared_out_evenly() -> None:
    sizes = [5, 1, 4, 2, 3, 3]
    owners = Worker(0, 2).share_out(sizes)
    assert [sum(s for s, owner in zip(sizes, owners, strict=True) if owner == rank) for rank in (0, 1)] == [
        9,
        9,
    ]
