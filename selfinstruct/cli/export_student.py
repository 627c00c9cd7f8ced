"""``selfinstruct export-student RUN``."""

from __future__ import annotations

import click

from selfinstruct.cli.common import force_option, json_option, print_json, run_argument

# Those of steps.training.gguf_quants, so that --help imports nothing heavy; a test compares.
PRECISIONS = ("f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m")


@click.command("export-student")
@run_argument
@click.option(
    "--gguf",
    "precision",
    type=click.Choice(PRECISIONS),
    default="q8_0",
    show_default=True,
    help="The precision of its weights.",
)
@click.option("--ollama", is_flag=True, help="Also write a Modelfile for `ollama create`.")
@force_option
@json_option
def command(run: str, precision: str, ollama: bool, force: bool, as_json: bool) -> None:
    """Write the student of the run in folder RUN as a GGUF file, into RUN/student/gguf.

    The file is kept only if llama.cpp makes the same tokens and answers of held-out prompts with it
    as the student does, as far as its precision allows.
    """
    from selfinstruct.api import Run

    opened = Run(run)
    done = opened.export_student(precision, ollama=ollama, force=force)
    if as_json:
        print_json(done)
        return
    click.echo(str(opened.folder.path / done.file))
    click.echo(
        f"{done.bytes / 1e6:,.0f} MB; on {done.parity.prompts} prompts its tokens are the "
        f"student's, {done.parity.agreement:.1%} of {done.parity.places} answer tokens agree, "
        f"mean difference {done.parity.difference:.3f} nats"
    )
    if ollama:
        click.echo(
            f"ollama create {opened.recipe.name} -f {opened.folder.student / 'gguf'}/Modelfile"
        )
