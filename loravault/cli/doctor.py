"""`loravault doctor`."""

from __future__ import annotations

import click

from loravault.cli.app import App, pass_app
from loravault.cli.words import as_json, columns, plain
from loravault.errors import UserError


@click.command("doctor")
@click.option("--json", "as_data", is_flag=True, help="Print it as JSON.")
@click.pass_context
@pass_app
def command(app: App, ctx: click.Context, as_data: bool) -> None:
    """Tell what works on this machine, and what does not.

    The device comes first. With a vault (named, or above here) also how safely its notes can be written.
    """
    from loravault.doctor import examine

    try:
        config = app.config()
        trouble = None
    except UserError as error:  # no vault, or one that is not set up: the machine can still be looked at
        config, trouble = None, error.message
    findings = list(examine(config))
    if as_data:
        click.echo(as_json({"findings": findings, "vault_problem": trouble}))
    else:
        click.echo(columns([(finding.label, finding.text) for finding in findings]))
        for finding in findings:
            if finding.advice:
                click.echo(plain(f"! {finding.advice}"))
        if trouble:
            click.echo(plain(f"! {trouble}"))
    if trouble or any(finding.advice for finding in findings):
        ctx.exit(1)
