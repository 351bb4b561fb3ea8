"""Which device does the work, in which precision, and how much of it at once."""

from __future__ import annotations

import importlib.util
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from loravault.errors import UserError


@dataclass(frozen=True)
class Device:
    """Where tensors live and how exact they are."""

    place: torch.device
    #: Precision of the models; sums of adapters are always formed in fp32.
    dtype: torch.dtype
    #: What a person reads.
    name: str
    #: Whether models can wait in ordinary memory while they are not in use: only where the device's is another one.
    offloads: bool = False


#: Number formats as `config.toml` calls them.
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(wish: str = "auto", dtype: str = "auto") -> Device:
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`; `auto` or one of `DTYPES`.

    Raises `UserError` for a device that is not there, or a precision that there is not.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise UserError(f"There is no precision called {dtype!r}; use auto, {', '.join(DTYPES)}.")
    found = _device(wish)
    return found if dtype == "auto" else replace(found, dtype=DTYPES[dtype])


def _device(wish: str) -> Device:
    kind = _best() if wish == "auto" else wish
    if kind.startswith("cuda"):
        if not torch.cuda.is_available():
            raise UserError(f"The device {wish} was asked for, but torch finds none; `loravault doctor` says why.")
        device = torch.device(kind)
        return Device(device, torch.float16, f"{kind} ({torch.cuda.get_device_name(device)})", offloads=True)
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise UserError("The device mps was asked for, but torch finds none.")
        return Device(torch.device("mps"), torch.float32, "mps (Apple GPU)")
    if kind != "cpu":
        raise UserError(f"There is no device called {wish!r}; use auto, cpu, cuda, cuda:N or mps.")
    threads = set_threads()
    return Device(torch.device("cpu"), torch.float32, f"cpu ({threads} thread{'s' if threads > 1 else ''})")


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def set_threads() -> int:
    """Takes as many threads as this process may really use, unless OMP_NUM_THREADS says how many.

    torch counts the processors of the machine; in a container that may use two of them it would start sixty threads.
    """
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(max(1, min(torch.get_num_threads(), usable_processors())))
    return torch.get_num_threads()


def usable_processors() -> int:
    """Processors by affinity and, on Linux, by the quota of the control group."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no control group, or `max`
        return max(1, count)


def images_at_once(width: int, height: int, *, on_cpu: bool) -> int:
    """How many images are denoised together: as many as memory surely bears.

    On a CPU more than four gain nothing, and large ones would each take hundreds of megabytes.
    """
    budget = 4 * 256 * 256 if on_cpu else 8 * 512 * 512
    return max(1, min(4 if on_cpu else 8, budget // (width * height)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch means that memory ran out (CPU allocation failures are plain RuntimeErrors)."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def why_not_compiled(device: Device) -> str | None:
    """Why `torch.compile` is not used on a device, in words; None: it can be."""
    if device.place.type != "cuda":
        return "models are only compiled for NVIDIA cards"
    if importlib.util.find_spec("triton") is None:
        return "it needs the package triton, which is not installed"
    return None


def wait_for(device: Device) -> None:
    """Until the device has done what it was told: a card works while we go on."""
    if device.place.type == "cuda":
        torch.cuda.synchronize(device.place)


class StopWatch:
    """How long a step takes. The first one is not counted: it does what is only done once."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._first = 0.0
        #: Steps so far.
        self.steps = 0

    def step(self) -> None:
        """One is done."""
        self.steps += 1
        if self.steps == 1:
            self._first = time.perf_counter()

    def step_s(self) -> float:
        """Seconds of one; 0: there were too few."""
        if self.steps < 2:
            return 0.0
        wait_for(self._device)
        return (time.perf_counter() - self._first) / (self.steps - 1)


def free_cache(device: Device) -> None:
    """Gives cached blocks back to the device after a failure."""
    if device.place.type == "cuda":
        torch.cuda.empty_cache()
    elif device.place.type == "mps":
        torch.mps.empty_cache()
