"""Every algorithm beside its named reference: the change of weight and bias of linear layers, convolutions and norms.

The references make the adapter, write its tensors and apply it in their own forward; what weight they apply is read
from what the layer computes. We read the same tensors. Neither PEFT nor LyCORIS is a dependency: install them somewhere
and name the place.

    pip install --target DIR --no-deps lycoris-lora==4.1.3 peft==0.21.2 einops toml
    PYTHONPATH=DIR python -m benchmarks.algorithms [--write]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import algorithms_formulas as formulas
from benchmarks import pairs
from benchmarks.algorithms_layers import KINDS, Impossible, Made
from loravault.engine.deltas import read_delta
from loravault.engine.dtypes import DTYPES
from loravault.formats.normal import Patch
from loravault.formats.tensor_table import TensorInfo

PAGE = Path(__file__).resolve().parents[1] / "docs" / "algorithms.md"
LIMIT = 1e-5
_ANY = (1.0, 0.6, -0.5)
_ONE = (1.0,)


@dataclass(frozen=True)
class Row:
    """One line of the matrix."""

    algorithm: str
    reference: str
    strengths: tuple[float, ...]
    make: Callable[[str], Made]
    #: Parts that the reference must have written, else the row is not about what it says.
    parts: tuple[str, ...] = ()


def lycoris_rows() -> Iterator[Row]:
    """What LyCORIS applies. Its module for DyLoRA draws a random rank in every call and cannot be compared."""
    from benchmarks.algorithms_lycoris import made_by_lycoris as made  # noqa: PLC0415 - optional
    from benchmarks.algorithms_lycoris import renamed  # noqa: PLC0415

    by = f"LyCORIS {importlib.metadata.version('lycoris-lora')}"
    yield Row("LoRA, LoCon", by, _ANY, made("lora"))
    yield Row("LoCon with core", by, _ANY, made("lora", use_tucker=True), ("lora_mid",))
    yield Row("LoHa", by, _ANY, made("loha"))
    yield Row("LoHa with cores", by, _ANY, made("loha", use_tucker=True), ("hada_t1",))
    yield Row("LoKr, first factor whole", by, _ANY, made("lokr", factor=4), ("lokr_w1", "lokr_w2_a"))
    yield Row(
        "LoKr, both in halves",
        by,
        _ANY,
        made("lokr", rank=2, decompose_both=True, factor=6),
        ("lokr_w1_a", "lokr_w2_a"),
    )
    yield Row("LoKr, both whole, alpha ignored", by, _ANY, made("lokr", full_matrix=True), ("lokr_w1", "lokr_w2"))
    yield Row("LoKr with core", by, _ANY, made("lokr", rank=2, use_tucker=True), ("lokr_t2",))
    yield Row("LoKr, unbalanced", by, _ANY, made("lokr", unbalanced_factorization=True, rank=2, factor=4))
    for name, algorithm, options in (("LoRA", "lora", {}), ("LoHa", "loha", {}), ("LoKr", "lokr", {"factor": 4})):
        for side, on_out in (("outputs", True), ("inputs", False)):
            maker = made(algorithm, weight_decompose=True, wd_on_out=on_out, **options)
            yield Row(f"DoRA on {name}, {side}", by, _ANY, maker, ("dora_scale",))
    yield Row("IA3 on outputs", by, _ANY, made("ia3"))
    yield Row("IA3 on inputs", by, _ANY, made("ia3", train_on_input=True))
    glora = made("glora")
    yield Row("GLoRA", by, _ANY, glora)
    swapped = {"a1": "a2", "a2": "a1", "b1": "b2", "b2": "b1"}
    yield Row("GLoRA, order before 2.0", by, _ANY, renamed(glora, swapped, only=("linear", "conv 1×1")))
    yield Row("OFT", by, _ANY, made("oft", rank=8))
    yield Row("OFT with constraint", by, _ANY, made("oft", rank=8, constraint=1e-2))
    yield Row("OFT with rescale", by, _ANY, made("oft", rank=8, rescaled=True), ("rescale",))
    yield Row("BOFT", by, _ANY, made("boft", rank=8))
    yield Row("BOFT with constraint", by, _ANY, made("boft", rank=8, constraint=1e-2))
    yield Row("BOFT with rescale", by, _ANY, made("boft", rank=8, rescaled=True), ("rescale",))
    yield Row("full, with bias", by, _ANY, made("full", bias=True))
    yield Row("norm", by, _ANY, made("norm"))


def peft_rows() -> Iterator[Row]:
    """What PEFT applies."""
    import peft  # noqa: PLC0415 - optional, and takes seconds

    from benchmarks import algorithms_peft as other  # noqa: PLC0415

    by, made, target = f"PEFT {peft.__version__}", other.made_by_peft, ["layer"]
    lora = {"r": 4, "lora_alpha": 3, "target_modules": target}
    yield Row("LoRA", by, _ANY, made("lora", lambda: peft.LoraConfig(**lora)))
    yield Row(
        "LoRA with bias",
        by,
        _ANY,
        made("lora", lambda: peft.LoraConfig(**lora, lora_bias=True), bias=True),
        ("lora_up.bias",),
    )
    yield Row("DoRA on LoRA", by, _ONE, made("lora", lambda: peft.LoraConfig(**lora, use_dora=True)), ("dora_scale",))
    loha = {"r": 4, "alpha": 3, "target_modules": target}
    yield Row("LoHa", by, _ANY, made("loha", lambda: peft.LoHaConfig(**loha, init_weights=False)))
    yield Row("LoKr", by, _ANY, made("lokr", lambda: peft.LoKrConfig(**loha, decompose_factor=4)))
    for side, inside in (("outputs", []), ("inputs", target)):
        config = {"target_modules": target, "feedforward_modules": inside}
        yield Row(f"IA3 on {side}", by, _ONE, made("ia3", lambda config=config: peft.IA3Config(**config), bias=True))
    oft = {"oft_block_size": 8, "target_modules": target}
    yield Row("OFT", by, _ONE, made("oft", lambda: peft.OFTConfig(**oft)))
    yield Row("OFT, one block for all", by, _ONE, made("oft", lambda: peft.OFTConfig(**oft, block_share=True)))
    for stages in (1, 2, 3):
        boft = {"boft_block_size": 4, "boft_n_butterfly_factor": stages, "target_modules": target}
        yield Row(f"BOFT, stages: {stages}", by, _ONE, made("boft", lambda boft=boft: peft.BOFTConfig(**boft)))


def formula_rows() -> Iterator[Row]:
    """Formulas of kohya's and ComfyUI's, whose programs are no packages. DyLoRA is saved as LoRA."""
    yield Row("LoRA, LoCon, DyLoRA", "kohya's formula", _ANY, formulas.kohya_lora)
    yield Row("OFT with constraint", "kohya's formula", _ANY, formulas.kohya_oft)
    yield Row("new values (`set_weight`)", "ComfyUI's rule", _ONE, formulas.comfy_set)


def error_of(made: Made, strength: float) -> float:
    """‖our change − theirs‖ / ‖their change‖, the greater of that of the weight and that of the bias."""
    tensors = list(made.parts.values())
    dtypes = {dtype: name for name, dtype in DTYPES.items()}
    parts = {
        part: (
            "lora_magnitude_vector" if made.peft and part == "dora_scale" else part,
            TensorInfo(dtypes[tensor.dtype], tuple(tensor.shape), (number, number)),
        )
        for number, (part, tensor) in enumerate(made.parts.items())
    }
    delta = read_delta(Patch("layer", made.algorithm, parts, (), made.alpha), lambda info: tensors[info.start])
    weight, bias = made.before
    theirs = [after - before for after, before in zip(made.adapted(strength), made.before, strict=True)]
    added = delta.bias(strength, bias)
    ours = [delta.change(weight, strength), torch.zeros_like(bias) if added is None else added]
    errors = [
        float((mine - their).norm() / their.norm()) if bool(their.any()) else float(mine.norm())
        for mine, their in zip(ours, theirs, strict=True)
    ]
    return max(errors)


def cells(row: Row) -> dict[str, float | str]:
    """Kind of layer → greatest error over the strengths, or why there is none."""
    result: dict[str, float | str] = {}
    for kind in KINDS:
        torch.manual_seed(0)
        try:
            made = row.make(kind)
        except Impossible as reason:
            result[kind] = str(reason)
            continue
        missing = [part for part in row.parts if part not in made.parts]
        if missing:
            raise SystemExit(f"{row.algorithm} by {row.reference}: {missing} not written, only {list(made.parts)}")
        result[kind] = max(error_of(made, strength) for strength in row.strengths)
    return result


def shown(cell: float | str) -> str:
    """`✓ 2e-07`, `✗ 3e-02` or the reason."""
    if isinstance(cell, str):
        return f"– ({cell})" if cell not in ("not for norms", "norms only") else "–"
    return f"{'✓' if cell <= LIMIT else '✗'} {cell:.0e}"


def main() -> int:
    """Prints the matrix; 1 if a cell is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="paste the matrix into docs/algorithms.md")
    options = parser.parse_args()
    rows = list(formula_rows())
    for package, of_it in (("peft", peft_rows), ("lycoris", lycoris_rows)):
        if importlib.util.find_spec(package) is not None:
            rows += of_it()
            continue
        print(f"{package} is not importable: its rows are left out (see the head of this file)", file=sys.stderr)
        if options.write:
            raise SystemExit("the page is written with all references only")
    lines = [f"| algorithm | reference | strengths | {' | '.join(KINDS)} |", "|---|---|---|" + "---|" * len(KINDS)]
    worst = 0.0
    for row in sorted(rows, key=lambda row: row.algorithm.casefold()):
        found = cells(row)
        strengths = ", ".join(f"{strength:g}" for strength in row.strengths)
        texts = " | ".join(shown(found[kind]) for kind in KINDS)
        lines.append(f"| {row.algorithm} | {row.reference} | {strengths} | {texts} |")
        worst = max([worst, *(cell for cell in found.values() if isinstance(cell, float))])
    text = "\n".join(lines)
    print(text)
    print(f"\nworst: {worst:.1e}, limit {LIMIT:.0e}")
    if options.write:
        pairs.paste("algorithms", text, PAGE)
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
