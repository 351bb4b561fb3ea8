"""Every algorithm in every spelling of the keys on small bases of every family: from a file on disk to the weights.

Two things are compared: each changed weight with the change that the algorithms give (which are compared with their
references elsewhere), and what the denoiser computes, its prompt read by the adapted text encoders, with what it
computes when every layer holds what formulas written elsewhere make of it in double precision.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from loravault.engine.adapters import load_adapter, names_of
from loravault.engine.apply import Patcher, Strength
from loravault.engine.bases import Base
from loravault.engine.devices import choose_device
from loravault.engine.draw import draw_latents
from loravault.engine.samplers import make_scheduler
from loravault.formats.normal import BaseNames
from tests.engine.deltas.making import delta_of
from tests.engine.matrix_formulas import adapted
from tests.engine.matrix_rows import ALL, HALVES, LAYERS, PEFT, Algorithm, Layer, Shape, Spelling
from tests.tiny import use_of

#: Strengths for the text encoders and for the denoiser.
TE, UNET = 0.7, -0.6


@dataclass(frozen=True)
class Cell:
    """How one algorithm in one spelling fared on one base."""

    layers: int
    #: The greatest ‖ours − wanted‖ / ‖wanted − original‖ of all weights and biases that are meant to change.
    error: float
    #: Layers that changed and should not have, or the other way round.
    wrong: tuple[str, ...]
    #: ‖ours − formula's‖ / ‖formula's‖ of the denoiser's output; 0 if it was not asked for.
    output: float = 0.0
    #: ‖formula's − without the adapter‖ / ‖formula's‖: what the adapter does to it.
    effect: float = 1.0
    #: ‖ours − the other program's‖ / ‖the other program's‖, if it was asked and could.
    beside: float | None = None


@dataclass(frozen=True)
class Adapted:
    """One layer of the base with what a file holds for it."""

    key: tuple[str, str]
    algorithm: Algorithm
    parts: Mapping[str, Tensor]
    strength: float


#: The denoiser's output with these layers adapted by another program; None if it has no such adapters.
Other = Callable[[Base, Sequence[Adapted]], Tensor | None]


def cell(
    base: Base,
    family: str,
    algorithm: Algorithm,
    spelling: Spelling,
    folder: Path,
    *,
    strengths: tuple[float, float] = (TE, UNET),
    outputs: bool = True,
    other: Other | None = None,
) -> Cell | None:
    """Makes a file, applies it, compares, and takes it out; None if there are no such files.

    Without `outputs` only weights are compared. `other` is for files that have the layers apart, as diffusers does.
    """
    before, tensors, wanted = _states(base), {}, {}
    formulas: dict[_Key, _State] = {}
    layers: list[Adapted] = []
    for one in LAYERS[family]:
        for part in [one] if spelling.fused else _apart(one):
            name = spelling.spell(family, part)
            parts = {} if name is None else _parts(algorithm, spelling, _shape(before, part), f"{family} {name}")
            if parts:
                tensors |= {f"{name}.{_written(key, spelling)}": tensor for key, tensor in parts.items()}
                strength = strengths[0 if part.component.startswith("text_encoder") else 1]
                layers.append(Adapted(part.pieces[0][:2], algorithm, parts, strength))
                _want(before, part, layers[-1], wanted)
                _put_formula(before, part, layers[-1], formulas)
    if not tensors:
        return None
    path = folder / "adapter.safetensors"
    save_file(tensors, path)
    found = load_adapter(use_of(path), base, _names(base))
    assert not found.unused, found.unused
    patcher = Patcher(base.modules)
    patcher.apply([Strength(found, te=strengths[0], unet=strengths[1])])
    after = _states(base)
    ours = output_of(base) if outputs else None
    patcher.restore()
    errors = [_error(before[key], after[key], changes) for key, changes in wanted.items()]
    wrong = [".".join(key) for key in before if key not in wanted and not _is(before[key], after[key])]
    wrong += [".".join(key) for key, state in _states(base).items() if not _is(before[key], state)]
    result = Cell(len(wanted), max(errors), tuple(wrong))
    if ours is None:
        return result
    theirs, others = output_of(base, formulas), other(base, layers) if other is not None else None
    beside = None if others is None else _apart_by(ours, others)
    return replace(result, output=_apart_by(ours, theirs), effect=_apart_by(_bare(base), theirs), beside=beside)


def _apart_by(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).norm() / other.double().norm())


def output_of(base: Base, held: Mapping[_Key, _State] | None = None) -> Tensor:
    """What the denoiser computes in the first step for a prompt, with these layers in the place of the base's own."""
    replaced = {key: base.modules[key]._parameters.copy() for key in held or {}}
    for key, (weight, bias) in (held or {}).items():
        parameters = base.modules[key]._parameters
        parameters["weight"] = torch.nn.Parameter(weight.float(), requires_grad=False)
        parameters["bias"] = None if bias is None else torch.nn.Parameter(bias.float(), requires_grad=False)
    found: list[Tensor] = []
    hook = base.denoiser.register_forward_hook(lambda _module, _given, result: found.append(_first(result)))
    try:
        with torch.no_grad():
            prompt = base.drawer.encode(base.pipe, "a cat", 1, negative=False)
        draw_latents(
            base, choose_device("cpu"), make_scheduler("Euler", base.scheduler_config, flow=base.drawer.flow),
            seeds=(1,), size=(64, 64), steps=1, cfg=1.0, prompt=prompt, negative=None, on_step=lambda _step: None,
        )  # fmt: skip
    finally:
        hook.remove()
        for key, parameters in replaced.items():
            base.modules[key]._parameters.update(parameters)
    return found[0]


def _first(result: object) -> Tensor:
    while not isinstance(result, Tensor):
        result = result[0]  # type: ignore[index]  # a tuple, a list, or an output of diffusers, which is like one
    return result.detach().clone()


def _bare(base: Base) -> Tensor:
    if id(base) not in _outputs:
        _outputs[id(base)] = (base, output_of(base))
    return _outputs[id(base)][1]


def _numbers(part: str, shape: Shape, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if part == "alpha":
        return torch.tensor(3.0)
    if part == "on_input":
        return torch.tensor(0.0)
    # Of many small numbers multiplied nothing would be left beside the rounding of the weights.
    drawn = torch.randn(shape, generator=generator) * (0.7 if "hada" in part else 0.2)
    around = ("rescale", "boft_s", "ia3_l", "dora_scale", "lora_magnitude_vector")
    return drawn.abs() + 1 if part in around else drawn


_Key = tuple[str, str]
_State = tuple[Tensor, Tensor | None]
#: Which rows of a layer change, by what, and what is added to those rows of its bias.
_Wanted = dict[_Key, list[tuple[slice, Tensor, Tensor | None]]]
_outputs: dict[int, tuple[Base, Tensor]] = {}
_known: dict[int, tuple[Base, BaseNames]] = {}


def _names(base: Base) -> BaseNames:
    return _known.setdefault(id(base), (base, names_of(base)))[1]


def _states(base: Base) -> dict[_Key, _State]:
    """What every layer holds, by reference."""
    return {
        key: (module.weight.data, bias.data if (bias := module._parameters.get("bias")) is not None else None)
        for key, module in base.modules.items()
    }


def _apart(one: Layer) -> list[Layer]:
    """As diffusers has it."""
    modules = list(dict.fromkeys(module for _, module, _ in one.pieces))
    if len(modules) == 1:
        return [Layer(one.name, one.original, ((one.component, modules[0], ALL),))]
    return [Layer(module, one.original, ((one.component, module, ALL),)) for module in modules]


def _shape(before: Mapping[_Key, _State], one: Layer) -> Shape:
    return tuple(_stacked(before, one).shape)


def _stacked(before: Mapping[_Key, _State], one: Layer) -> Tensor:
    return torch.cat([before[component, module][0][rows] for component, module, rows in one.pieces])


def _parts(algorithm: Algorithm, spelling: Spelling, shape: Shape, seed: str) -> dict[str, Tensor]:
    """The tensors of one layer under the names that `derived` has; empty if there is no such change for it."""
    make = algorithm.make if spelling.parts == "kohya" and algorithm.kohya else None
    if spelling.parts.startswith("peft") or (spelling.parts == "halves" and algorithm.name == "LoRA, LoCon"):
        make = algorithm.peft
    if (
        make is None
        or len(shape) not in algorithm.dimensions
        or (shape[2:] in ((), (1, 1)) and "core" in algorithm.name)
    ):
        return {}
    return {part: _numbers(part, size, zlib.crc32(f"{seed} {part}".encode())) for part, size in make(shape).items()}


def _written(part: str, spelling: Spelling) -> str:
    if spelling.parts == "halves":
        return HALVES[part]
    if spelling.parts == "kohya":
        return part
    name = PEFT.get(part, part)
    return name.replace(".weight", ".default.weight") if spelling.parts == "peft in memory" else name


def _want(before: Mapping[_Key, _State], one: Layer, made: Adapted, wanted: _Wanted) -> None:
    """What the formula makes of these tensors, row by row of the base."""
    parts = made.parts
    peft = "lora_magnitude_vector" in parts
    spelled = {
        "dora_scale" if part == "lora_magnitude_vector" else part.removesuffix(".weight"): tensor
        for part, tensor in parts.items()
    }
    delta = delta_of(made.algorithm.kind, spelled, peft=peft)
    change = delta.change(_stacked(before, one), made.strength)
    biases = [(before[component, module], rows) for component, module, rows in one.pieces]
    b0 = None
    if any(bias is not None for (_, bias), _ in biases):
        b0 = torch.cat([(torch.zeros(w.shape[0]) if bias is None else bias)[rows] for (w, bias), rows in biases])
    added, begin = delta.bias(made.strength, b0), 0
    for component, module, rows in one.pieces:
        end = begin + before[component, module][0][rows].shape[0]
        bias = None if added is None else added[begin:end]
        wanted.setdefault((component, module), []).append((rows, change[begin:end], bias))
        begin = end


def _put_formula(before: Mapping[_Key, _State], one: Layer, made: Adapted, into: dict[_Key, _State]) -> None:
    """What the pieces of one layer of the file hold by the formula."""
    biases = [before[component, module][1] for component, module, _ in one.pieces]
    stacked = None
    if any(bias is not None for bias in biases):
        stacked = torch.cat([
            (torch.zeros(before[component, module][0].shape[0]) if bias is None else bias)[rows]
            for bias, (component, module, rows) in zip(biases, one.pieces, strict=True)
        ])  # fmt: skip
    weight, bias = adapted(made.algorithm.kind, made.parts, (_stacked(before, one), stacked), made.strength)
    begin = 0
    for component, module, rows in one.pieces:
        key = (component, module)
        held = into.get(key) or tuple(None if t is None else t.double().clone() for t in before[key])
        whole, whole_bias = held
        end = begin + whole[rows].shape[0]
        whole[rows] = weight[begin:end]
        if bias is not None:
            whole_bias = torch.zeros(whole.shape[0], dtype=torch.float64) if whole_bias is None else whole_bias
            whole_bias[rows] = bias[begin:end]
        into[key] = (whole, whole_bias)
        begin = end


def _error(before: _State, after: _State, changes: list[tuple[slice, Tensor, Tensor | None]]) -> float:
    weight, bias = before[0].double(), before[1]
    wanted = weight.clone()
    wanted_bias = torch.zeros(weight.shape[0], dtype=torch.float64) if bias is None else bias.double().clone()
    old_bias = wanted_bias.clone()
    for rows, change, added in changes:
        wanted[rows] += change
        if added is not None:
            wanted_bias[rows] += added
    found_bias = torch.zeros_like(old_bias) if after[1] is None else after[1].double()
    pairs = ((after[0].double(), wanted, weight), (found_bias, wanted_bias, old_bias))
    return max(
        float((found - new).norm() / (new - old).norm()) if bool((new != old).any()) else float((found - new).norm())
        for found, new, old in pairs
    )


def _is(one: _State, other: _State) -> bool:
    """Whether a layer holds the very same tensors."""
    same_bias = one[1] is other[1] is None or (
        one[1] is not None and other[1] is not None and one[1].data_ptr() == other[1].data_ptr()
    )
    return one[0].data_ptr() == other[0].data_ptr() and same_bias
