"""`billing explain`: the whole story of one task."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from billing.cli.completing import clients
from billing.cli.context import find_app, settings
from billing.cli.output import emit_json, json_option
from billing.core.printable import printable
from billing.explaining.explain import explain as tell
from billing.explaining.story import Step, Story
from billing.task.runtime import Runtime


@click.command(epilog="Example: billing -A worker_tasks.app explain 6f1c2f7e-6a0e-4f43-9f0c-1f5a3d0b8a11")
@click.argument("task_id")
@click.option(
    "--client",
    "client_id",
    metavar="CLIENT",
    shell_complete=clients,
    help="Who pays: Redis is then looked through on one shard.",
)
@json_option
def explain(task_id: str, client_id: str | None, as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """Tell the whole story of one task: why it was refused, whether it was charged, where the money is.

    TASK_ID is Celery's id of the task (of a block of billing.reserve its key), or a run id. With -A the result backend
    is asked, too. Exit code 1 when a source did not answer, so that the story may lack something.
    """
    found = settings()
    runtime = Runtime(lambda: found)
    try:
        story = tell(runtime, task_id, client_id=client_id, app=find_app())
    finally:
        runtime.close()
    if as_json:
        emit_json(story)
    else:
        _print(story)
    if not story.is_complete:
        click.get_current_context().exit(1)


def _print(story: Story) -> None:
    click.secho(f"{printable(story.task_id)}: {story.verdict}", bold=True)
    several = len(story.run_ids) > 1
    told: object = None
    width = max((len(step.what) for step in story.steps), default=0)
    for step in story.steps:
        if several and step.run_id != told:
            told = step.run_id
            number = "the task" if step.run_id is None else f"run {story.run_ids.index(step.run_id) + 1}"
            click.echo(f"{number}:")
        click.echo(_line(step, width))
    for source in story.unanswered:
        click.secho(f"not answered: {source}", fg="red")


def _line(step: Step, width: int) -> str:
    at = "" if step.at is None else _instant(step.at)
    return f"  {at:<23}  {step.what:<{width}}  {step.detail}".rstrip()


def _instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
