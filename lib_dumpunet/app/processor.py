"""Set the number of threads and how they wait, so that a command stays fast while other programs run.

By default, OpenMP threads spin while they wait for each other. With a browser on the same cores, that makes sampling
three to five times slower; sleeping threads cost next to nothing on an idle machine.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

CGROUP = Path("/sys/fs/cgroup")
SMALL = 50_000_000
"""Number of weights below which a second thread does not make a U-Net faster."""


def prepare_threads() -> None:
    """Set OpenMP's environment variables, unless the user has set them; call this before torch is imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    cores = core_quota()
    if cores is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))


def core_quota(cgroup: Path = CGROUP) -> int | None:
    """Return a container's limit on CPU cores, at least 1; None if there is no limit below the number of cores."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((cgroup / name).read_text() for name in files).split()
            cores = max(1, int(quota) // int(period)) if int(quota) > 0 else None
        except (OSError, ValueError):  # no such file, or "max"
            continue
        return cores if cores is not None and cores < (os.cpu_count() or 1) else None
    return None


def fit_threads(unet: Any) -> None:
    """Use one thread for a small U-Net on the CPU, and all threads otherwise, unless the user has set their number."""
    import torch

    if "OMP_NUM_THREADS" in os.environ:
        return
    every = _threads_at_first()
    is_small = unet.device.type == "cpu" and sum(weight.numel() for weight in unet.parameters()) < SMALL
    torch.set_num_threads(1 if is_small else every)


@cache
def _threads_at_first() -> int:
    """Return torch's initial number of threads."""
    import torch

    return torch.get_num_threads()
