"""`loravault init`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loravault.cli.app import App, pass_app
from loravault.cli.asking import confirmed
from loravault.cli.words import as_json, counted, plain, size
from loravault.errors import UserError

if TYPE_CHECKING:
    from loravault.firstrun import InitPlan

#: So many links that lead elsewhere are named.
LINKS = 5


@click.command("init")
@click.argument("vault", type=click.Path(path_type=Path))
@click.option("--loras", multiple=True, metavar="DIR", type=click.Path(path_type=Path), help="A folder with LoRAs.")
@click.option(
    "--ui",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The folder of A1111, Forge or ComfyUI, or an extra_model_paths.yaml: its model folders are used.",
)
@click.option(
    "--bases", multiple=True, metavar="DIR", type=click.Path(path_type=Path), help="A folder with base models."
)
@click.option("--folder", metavar="NAME", help="Our folder in the vault.  [default: LoraVault]")
@click.option("-n", "--dry-run", is_flag=True, help="Only tell what would appear.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_data", is_flag=True, help="Print it as JSON; with --yes or --dry-run.")
@pass_app
def command(
    app: App,
    vault: Path,
    loras: tuple[Path, ...],
    ui: tuple[Path, ...],
    bases: tuple[Path, ...],
    folder: str | None,
    dry_run: bool,
    yes: bool,
    as_data: bool,
) -> None:
    """Set up a vault: where your LoRAs are, and our folder in it.

    What will appear is told first. Your LoRAs are only read. Run it again to add folders.
    """
    from loravault.firstrun import carry_out, plan_init

    if as_data and not (yes or dry_run):
        raise UserError("--json cannot ask: say --yes or --dry-run with it.")

    def full(path: Path) -> Path:
        return _absolute(app.cwd, path)

    plan = plan_init(
        full(vault),
        loras=[*map(full, loras)],
        uis=[*map(full, ui)],
        bases=[*map(full, bases)],
        folder=folder,
        env=app.env,
    )
    if as_data:
        if not dry_run:
            carry_out(plan, app.env)
        click.echo(as_json({**_data(plan), "written": not dry_run}))
        return
    click.echo(plain("\n".join(_lines(plan))))
    if dry_run:
        click.echo("Nothing was written (--dry-run).")
        return
    if not yes and not confirmed("Go on?", default=True):
        click.echo("Nothing was written.")
        return
    carry_out(plan, app.env)
    click.echo(plain(f'Done. Next: loravault --vault "{plan.config.vault}" watch'))


def _absolute(cwd: Path, path: Path) -> Path:
    import os

    return Path(os.path.abspath(cwd / path.expanduser()))


def _data(plan: InitPlan) -> dict[str, Any]:
    """The plan for a script: what will appear, and what was found."""
    config = plan.config
    return {
        "vault": config.vault,
        "config": plan.config_file,
        "again": plan.again,
        "loras": {root.name: root.path for root in config.loras},
        "adapters": plan.adapters,
        "adapter_bytes": plan.adapter_bytes,
        "pickles": plan.pickles,
        "elsewhere": dict(plan.elsewhere),
        "bases": plan.bases,
        "base_folders": config.bases,
        "notes": [rel for rel, _ in plan.notes],
        "note_bytes": plan.note_bytes,
        "library_notes": plan.library_notes,
        "library_covers": plan.previews,
        "library_bytes": plan.library_bytes,
        "problems": plan.problems,
    }


def _lines(plan: InitPlan) -> list[str]:
    config = plan.config
    lines = [f"Vault: {config.vault}" + (" (set up before)" if plan.again else "")]
    lines.append(f"LoRAs: {counted(plan.adapters, 'file')}, {size(plan.adapter_bytes)}; they are only read")
    lines += [f"  {root.name}: {root.path}" for root in config.loras]
    if plan.pickles:
        lines.append(f"  left alone: {counted(plan.pickles, 'file')} in formats that can run code (.pt, .ckpt, .bin)")
    if plan.elsewhere:
        lines.append("  not followed: they lead out of these folders (add --loras FOLDER to have what is there):")
        lines += [f"    {place} -> {target}" for place, target in plan.elsewhere[:LINKS]]
        if len(plan.elsewhere) > LINKS:
            lines.append(f"    and {counted(len(plan.elsewhere) - LINKS, 'more link')}")
    lines += [f"  {problem}" for problem in plan.problems]
    lines.append(f"Bases: the demo base{''.join(f', {name}' for name in plan.bases)}")
    lines += [f"  {path}" for path in config.bases]
    for program in plan.programs:
        for kind in ("vaes", "embeddings", "wildcards"):
            if paths := getattr(program, kind):
                lines.append(f"Also found, not used yet: {kind} in {', '.join(map(str, paths))}")
    lines.append(f"Will appear in {config.folder}/: {counted(len(plan.notes), 'note')}, {size(plan.note_bytes)}")
    lines += [f"  {rel}" for rel, _ in plan.notes]
    lines.append("And, while `loravault watch` runs:")
    if plan.library_notes:
        covers = f" and {counted(plan.previews, 'cover')}" if plan.previews else ""
        lines.append(
            f"  about {counted(plan.library_notes, 'note')}{covers}, {size(plan.library_bytes)}: a card for every LoRA"
        )
    lines.append("  the dashboard and the pictures you ask for")
    lines.append(f"Settings go to: {plan.config_file}")
    return lines
