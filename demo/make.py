"""The one entry: `python -m demo.make` draws, trains, exports, measures, and writes the figures into README.md.

Every stage keeps its result under demo/.work and goes on where it stopped. `python -m demo.make figures` only measures
what is in the package and prints it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file

from demo import classifier, evaluate, recipes, train_adapter, train_unet, train_vae
from demo.common import ADAPTERS, BASE, ROOT, WORK, log
from demo.export import export
from loravault.engine.training.export import add_thumbnail

README = ROOT / "demo" / "README.md"
START, STOP = "<!-- figures -->", "<!-- /figures -->"


def make_base(rough: bool = False) -> None:
    """Train what is not yet trained and export it; `rough` exports the latest checkpoint as it is."""
    train_vae.train(WORK)
    base, tokenizer = train_unet.averaged_base(WORK) if rough else train_unet.train(WORK)
    if not rough and not (WORK / "vae_refined").exists():
        train_vae.refine(WORK)
    refined = WORK / "vae_refined"
    vae = AutoencoderKL.from_pretrained(str(refined if refined.exists() else WORK / "vae_final"))
    size = export(BASE, vae, base.text_encoder.cpu(), base.unet.cpu(), tokenizer)
    log(f"exported {size / 1e6:.1f} MB to {BASE.relative_to(ROOT)}")


def make_adapters(names: list[str]) -> None:
    """The adapters that ship (or those of `names`), each with its preview beside it and inside it."""
    for recipe in recipes.SHIPPED:
        if names and recipe.name not in names:
            continue
        outcome = train_adapter.train(WORK, BASE, recipe, ADAPTERS)
        path, shown = ADAPTERS / f"{recipe.name}.safetensors", ADAPTERS / f"{recipe.name}.preview.png"
        _preview(recipe, load_file(path)).save(shown, optimize=True)
        add_thumbnail(path, shown)
        shutil.rmtree(WORK / "adapters" / recipe.name, ignore_errors=True)
        log(f"{recipe.name}: {outcome.seconds:.0f} s")


def _preview(recipe: recipes.Recipe, tensors: dict[str, torch.Tensor]) -> Image.Image:
    pipe, base = train_adapter.load_base(BASE)
    evaluate.use_sampler(pipe, "DPM++ 2M Karras")
    train_adapter.merge(base, tensors)
    if recipe.subject:
        asked = ("white", "in a meadow"), ("blue", "at night"), ("pink", "on a beach"), ("green", "in a room")
        prompts = [f"a big {colour} {recipe.trigger} {place}" for colour, place in asked]
    else:
        asked = (
            ("red", "cat in a room"),
            ("green", "tree in a meadow"),
            ("blue", "boat on a beach"),
            ("yellow", "house in the snow"),
        )
        prompts = [f"{recipe.trigger}, a big {colour} {rest}" for colour, rest in asked]
    return evaluate.sheet(evaluate.generate(pipe, prompts, seed=40), columns=2)


def make_sheets() -> None:
    """The contact sheet of the base and one page per adapter."""
    pipe, _ = train_adapter.load_base(BASE)
    evaluate.use_sampler(pipe, "DPM++ 2M Karras")
    prompts = evaluate.sheet_prompts()
    evaluate.sheet(evaluate.generate(pipe, prompts, seed=1), columns=8).save(
        ROOT / "demo" / "contact_sheet.webp", quality=88
    )
    lines = [f"{n // 8 + 1}.{n % 8 + 1} {prompt}" for n, prompt in enumerate(prompts)]
    (ROOT / "demo" / "contact_sheet.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def figures(parts: tuple[str, ...]) -> dict[str, Any]:
    """Measure; results are kept in .work/figures.json so that a part can be measured again alone."""
    path = WORK / "figures.json"
    found: dict[str, Any] = {}
    examiner = classifier.train(WORK)
    pipe, base = train_adapter.load_base(BASE)
    evaluate.use_sampler(pipe, "DPM++ 2M Karras")
    if "base" in parts:
        found["examiner"] = evaluate.examiner_line(WORK, examiner)
        models = {"UNet": base.unet, "text encoder": base.text_encoder, "VAE": pipe.vae}
        found["parameters"] = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
        found["size"] = sum(file.stat().st_size for file in BASE.rglob("*") if file.is_file())
        found["seconds"] = evaluate.seconds_per_image(pipe)
        evaluate.quick(pipe)
        found["base"] = evaluate.score_base(pipe, examiner, evaluate.PROMPTS).line()
    if "samplers" in parts:
        pipe = evaluate.quick(train_adapter.load_base(BASE)[0])
        found["samplers"] = {name: scores.line() for name, scores in evaluate.score_samplers(pipe, examiner).items()}
    if "adapters" in parts:
        for recipe in recipes.SHIPPED:
            tensors = load_file(ADAPTERS / f"{recipe.name}.safetensors")
            found[recipe.name] = (
                f"{_megabytes(tensors)}; {evaluate.score_adapter(BASE, examiner, recipe, tensors).line()}"
            )
    if "newcomer" in parts:
        outcome = train_adapter.train(WORK, BASE, recipes.NEWCOMER, WORK / "newcomer")
        tensors = load_file(outcome.checkpoints[-1].path)
        scores = evaluate.score_adapter(BASE, examiner, recipes.NEWCOMER, tensors)
        found["newcomer"] = f"trained in {outcome.seconds:.0f} s, {_megabytes(tensors)}; {scores.line()}"
    earlier: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**earlier, **found}, indent=1))
    return {**earlier, **found}


def _megabytes(tensors: dict[str, torch.Tensor]) -> str:
    return f"{sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) / 1e6:.2f} MB"


def table(found: dict[str, Any]) -> str:
    """The figures as Markdown; what has not been measured is left out."""
    newcomer = recipes.NEWCOMER
    rows: list[tuple[str, str]] = []
    if "base" in found:
        parameters = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in found["parameters"].items())
        rows += [
            ("Size", f"{found['size'] / 1e6:.1f} MB fp16 ({parameters} parameters)"),
            ("Examiner on drawings it has not seen", found["examiner"]),
            (f"Base, {evaluate.PROMPTS} prompts of held-out combinations", found["base"]),
            (
                f"One picture, {evaluate.TIMED_STEPS} steps with guidance, float32",
                f"{found['seconds']:.2f} s, {torch.get_num_threads()} thread(s)",
            ),
        ]
    if "newcomer" in found:
        rows.append(
            (
                f"New adapter as the product decides it, {newcomer.pictures} pictures of a {newcomer.subject}",
                found["newcomer"],
            )
        )
    rows += [
        (f"`{r.name}`, trigger “{r.trigger}”, rank {r.rank}", found[r.name]) for r in recipes.SHIPPED if r.name in found
    ]
    rows += [(f"Sampler {name}", line) for name, line in found.get("samplers", {}).items()]
    return "\n".join(["| What | Measured |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def paste(found: dict[str, Any], readme: Path = README) -> None:
    """Put the table between the markers of the README."""
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(START, 1)
    after = rest.split(STOP, 1)[1]
    readme.write_text(f"{before}{START}\n{table(found)}\n{STOP}{after}", encoding="utf-8")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    stages = ("all", "base", "rough", "adapters", "sheets", "figures")
    parser.add_argument("stage", nargs="?", default="all", choices=stages)
    parser.add_argument(
        "--only", nargs="*", default=["base", "samplers", "adapters", "newcomer"], help="parts of the figures"
    )
    parser.add_argument("--adapter", nargs="*", default=[], help="train only these adapters")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    stage = arguments.stage
    if stage in ("all", "base", "rough"):
        make_base(rough=stage == "rough")
    if stage in ("all", "adapters"):
        make_adapters(arguments.adapter)
    if stage in ("all", "sheets"):
        make_sheets()
    if stage in ("all", "figures"):
        found = figures(tuple(arguments.only))
        text = table(found)
        paste(found)
        print(text)


if __name__ == "__main__":
    main()
