"""``selfinstruct fetch MODEL``."""

from __future__ import annotations

import click


@click.command("fetch")
@click.argument("model")
@click.option("--sha256", help="The checksum the file must have; required for a URL.")
def command(model: str, sha256: str | None) -> None:
    """Fetch a model for a teacher on this machine into the cache, once, and check its sha256.

    MODEL is `smollm2-135m-instruct`, the URL of a GGUF file, or the path of one, to check it. Under
    `privacy: local` a run fetches nothing from elsewhere by itself, so this is done before.
    """
    from selfinstruct.steps.teachers.models import resolve

    click.echo(str(resolve(model, sha256=sha256)))
