"""`loravault uninstall`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from loravault.cli.app import App, pass_app
from loravault.cli.words import as_json, counted, plain, size

if TYPE_CHECKING:
    from loravault.uninstall import UninstallPlan

#: Names that are shown of those that stay for one reason.
_SHOWN = 8


@click.command("uninstall")
@click.option("--results", is_flag=True, help="Also take our unchanged results and properties out of your notes.")
@click.option("--images", is_flag=True, help="Also the pictures that were made, where no note that stays shows them.")
@click.option("-y", "--yes", is_flag=True, help="Do it. Without this, what would go is only listed.")
@click.option("--json", "as_data", is_flag=True, help="Print it as JSON.")
@click.pass_context
@pass_app
def command(app: App, ctx: click.Context, results: bool, images: bool, yes: bool, as_data: bool) -> None:
    """Remove what is ours and unchanged from the vault.

    It goes into the vault's `.trash`. What you wrote stays, and so do pictures and results unless you say otherwise.
    LoRA files are not touched. The settings of this vault and its state folder go last.
    """
    from loravault.uninstall import carry_out, plan_uninstall

    plan = plan_uninstall(app.config(), app.env, results=results, images=images)
    if not yes:
        click.echo(as_json(_data(plan)) if as_data else plain("\n".join(_lines(plan))))
        return
    done = carry_out(plan, app.env)
    if as_data:
        click.echo(as_json({**vars(done), "stay": plan.stay}))
        ctx.exit(0 if done.finished else 1)
    click.echo(plain("\n".join(_staying(plan))))
    click.echo(plain(f"{counted(done.moved, 'file')} moved to {done.trash}, {counted(done.notes, 'note')} cleaned."))
    for name, why in done.stayed:
        click.echo(plain(f"  could not go: {name} ({why.rstrip('.')})"))
    click.echo("Done." if done.finished else "The settings stay until the rest could go: run it again.")
    ctx.exit(0 if done.finished else 1)


def _data(plan: UninstallPlan) -> dict[str, object]:
    return {
        "go": plan.go,
        "bytes": plan.size,
        "notes": list(plan.notes),
        "stay": plan.stay,
        "state": plan.state,
        "config": plan.config_file,
    }


def _lines(plan: UninstallPlan) -> list[str]:
    kinds = Counter(one.kind for one in plan.go)
    lines = [f"Would go into .trash: {counted(len(plan.go), 'file')}, {size(plan.size)}"]
    lines += [f"  {counted(count, kind)}" for kind, count in sorted(kinds.items())]
    if plan.notes:
        lines.append(f"Results would be taken out of {counted(len(plan.notes), 'note')}:")
        lines += [f"  {rel}" for rel in plan.notes]
    lines += _staying(plan)
    lines.append(f"Then the settings of this vault in {plan.config_file} and {plan.state} would go.")
    return [*lines, "Nothing was changed: this only lists; --yes does it."]


def _staying(plan: UninstallPlan) -> list[str]:
    """What stays, by reason; of thousands of pictures a few names are enough (--json has them all)."""
    reasons: dict[str, list[str]] = {}
    for rel, why in plan.stay:
        reasons.setdefault(why, []).append(rel)
    lines = []
    for why, rels in reasons.items():
        lines += [f"stays: {rel} ({why})" for rel in rels[:_SHOWN]]
        if len(rels) > _SHOWN:
            lines.append(f"stays: {len(rels) - _SHOWN:,} more ({why})")
    return lines
