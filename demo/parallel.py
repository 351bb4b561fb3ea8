"""Train on several cores: one single-threaded process each, which meet once a step to average their gradients.

Threads meet thousands of times a step, and when the cores are shared with anything else each of these meetings waits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed, nn

from demo.common import device

Task = Callable[[Path, int, int], None]  # (work folder, rank, number of workers)


def run(task: Task, work: Path) -> None:
    """Run `task` in as many processes as torch has threads; on a GPU in this one."""
    workers = torch.get_num_threads() if device().type == "cpu" else 1
    if workers == 1:
        task(work, 0, 1)
        return
    with tempfile.TemporaryDirectory() as folder:
        arguments = (task, work, workers, Path(folder) / "rendezvous")
        torch.multiprocessing.spawn(_worker, args=arguments, nprocs=workers)


def _worker(rank: int, task: Task, work: Path, workers: int, rendezvous: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=rendezvous.as_uri(), rank=rank, world_size=workers)
    task(work, rank, workers)
    distributed.destroy_process_group()


def average_gradients(parameters: list[nn.Parameter], workers: int) -> None:
    """All workers go on with the same mean gradient; one message for all parameters."""
    if workers == 1:
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= workers
    for parameter, mean in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = mean.view_as(parameter).contiguous(memory_format=torch.preserve_format)
