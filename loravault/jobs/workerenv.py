"""The environment of a worker."""

from __future__ import annotations

from collections.abc import Mapping

#: What is switched off in a worker: it may not talk to the network, draw bars or start helpers of its own.
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    # `python -m` would otherwise find modules in the current folder, which may hold files of strangers.
    "PYTHONSAFEPATH": "1",
}

#: What a user may set otherwise. Threads that spin while they wait for each other are ten times slower as soon as
#: anything else uses the processor (measured: 56 s instead of 5 s beside one busy process on two cores).
GENTLE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What a worker is started with, where `ours` is what we have and what it is to be told."""
    return {**GENTLE, **ours, **QUIET}
