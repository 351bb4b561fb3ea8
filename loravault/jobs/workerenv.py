"""The environment of a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


#: The cards that a process may use, as NVIDIA's driver reads it.
VISIBLE = "CUDA_VISIBLE_DEVICES"
#: All the cards that our workers may use, for a training on several of them.
CARDS = "LORAVAULT_CARDS"


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What a worker is started with, where `ours` is what we have and what it is to be told."""
    return {**GENTLE, **ours, **QUIET}


def with_cards(devices: Sequence[str], ours: Mapping[str, str]) -> dict[str, str]:
    """What the workers of several devices are told of each other's cards."""
    told = [for_device(one, ours, several=True) for one in devices if one.startswith("cuda:")]
    cards = [one[VISIBLE] for one in told if one["LORAVAULT_DEVICE"] == "cuda"]
    return {**ours, CARDS: ",".join(cards)} if len(cards) > 1 else dict(ours)


def for_device(device: str, ours: Mapping[str, str], *, several: bool) -> dict[str, str]:
    """What the worker of one device is told. Where there are several, each sees only its own card.

    torch keeps a context of some hundred megabytes on every card that it sees, and takes the first one for what is not
    told where to go.
    """
    kind, _, number = device.partition(":")
    if not several or kind != "cuda" or not number:
        return {**ours, "LORAVAULT_DEVICE": device}
    seen = [card.strip() for card in ours.get(VISIBLE, "").split(",") if card.strip()]
    if not seen:
        card = number
    elif int(number) < len(seen):
        card = seen[int(number)]  # of those that we may use, as whoever started us has decided
    else:
        return {**ours, "LORAVAULT_DEVICE": device}  # torch says that it is not there
    return {**ours, "LORAVAULT_DEVICE": "cuda", VISIBLE: card}
