"""The entry point: finds a command, runs it, and shows every expected error as one line.

Exit codes: 0 done, 1 a fault of ours, 2 something given was wrong, 3 stopped by the cost cap,
4 refused by the teacher, 5 the ledger cannot be written, 6 stopped for lack of progress,
130 interrupted. They are those of `core.errors`.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from selfinstruct import __version__
from selfinstruct.core.errors import SelfInstructError

# Name, and the line that --help shows; a command's module is imported when it is used.
COMMANDS = {
    "init": "Write a starter project: seeds, prompts, recipes.",
    "fetch": "Fetch a known small model for a teacher on this machine.",
    "estimate": "Say what a run will cost before anything is spent.",
    "run": "Do all stages of a recipe, skipping what is done.",
    "generate": "Grow seed tasks into judged records.",
    "status": "Show a run: funnel, spend, what is done.",
    "batches": "Show, cancel or give up what a batch API is working on.",
    "select": "Select from a run or any dataset, by scores and diversity.",
    "refilter": "Judge what a run has stored by other filters.",
    "filter": "Filter any dataset, without a run.",
    "export": "Write the dataset folder, or one file in another format.",
    "train-student": "Fine-tune the student on a run's dataset.",
    "export-student": "Write the student as a GGUF file, for llama.cpp and Ollama.",
    "evaluate": "Measure base and student on held-out records.",
    "compare": "Show two runs or datasets side by side.",
    "report": "Write the run's report as one HTML file.",
    "publish": "Publish dataset and student in the Hub's format.",
    "prices": "Show the price table that bills are made from.",
    "doctor": "Show what is installed, which keys are set and what fits.",
}


class LazyGroup(click.Group):
    """Commands that are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of a run."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, from the module of its name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"selfinstruct.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 a fault of ours, 2 something given was wrong, 3 stopped by the "
    "cost cap, 4 refused by the teacher, 5 the ledger cannot be written, 6 stopped for lack of "
    "progress, 130 interrupted.",
)
@click.version_option(__version__, prog_name="selfinstruct")
def cli() -> None:
    """Grow a few examples into an instruction dataset and a small student of your own."""


def main() -> None:
    """Run the command line and exit."""
    try:
        cli.main(standalone_mode=False)
    except SelfInstructError as error:
        if _is_first_to_say(str(error)):
            _say(str(error))
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted; nothing that was paid for is lost, the same command continues")
        sys.exit(130)


def _is_first_to_say(message: str) -> bool:
    """Whether to say it: of processes that train together, all may have met the same fault."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return True
    from selfinstruct.steps.processes import is_first_to_say

    return is_first_to_say(message)


def _say(message: str) -> None:
    click.echo(f"selfinstruct: {' '.join(message.split())}", err=True)
