"""``selfinstruct train-student RUN``."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from selfinstruct.cli.common import (
    force_option,
    json_option,
    print_json,
    run_argument,
    say_aside,
    set_option,
)
from selfinstruct.core.errors import UserError

if TYPE_CHECKING:
    from selfinstruct.api import Run
    from selfinstruct.core.sections.student import StudentConfig
    from selfinstruct.engine.dataset_folder import DatasetSummary
    from selfinstruct.steps.planning.outlook import Outlook

FAULTS_SAID = 3


@click.command("train-student")
@run_argument
@click.option(
    "--data",
    type=click.Path(),
    multiple=True,
    help="Train on this file or folder instead of a run's records; makes the folder RUN. "
    "Repeatable.",
)
@click.option("--base", help="The model that is fine-tuned: the same as --set student.base=.")
@click.option(
    "--recipe",
    type=click.Path(dir_okay=False),
    help="With --data: the recipe whose other settings count.",
)
@set_option
@click.option("--plan", "only_plan", is_flag=True, help="Say what it takes, and train nothing.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="Processes that share the work on this machine (or each node) [one a GPU].",
)
@click.option(
    "--launch",
    type=click.Choice(["torchrun", "accelerate", "slurm"]),
    help="Write the launch files into RUN and print the command that starts it.",
)
@click.option(
    "--sharding",
    type=click.Choice(["ddp", "fsdp", "zero3"]),
    default="ddp",
    show_default=True,
    help="What processes split: the batch, or the model too (FSDP2, DeepSpeed ZeRO-3).",
)
@click.option("--nodes", type=click.IntRange(min=1), default=1, help="Machines, for slurm.")
@click.option("--go", is_flag=True, help="With --launch: start it too.")
@click.option(
    "--show-masks",
    "masks",
    type=click.IntRange(min=1),
    metavar="N",
    help="Print N training examples with what is learned in colour, and train nothing.",
)
@force_option
@json_option
def command(
    run: str,
    data: tuple[str, ...],
    base: str | None,
    recipe: str | None,
    overrides: tuple[str, ...],
    only_plan: bool,
    processes: int | None,
    launch: str | None,
    masks: int | None,
    force: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Fine-tune the student of the run in folder RUN on its dataset.

    With --data there need be no run: RUN is made, for a student on data that is there already.

    Stopped at any moment, the same command continues from the last complete checkpoint. On several
    GPUs it starts a process for each, as torchrun does.
    """
    from selfinstruct.api import Run
    from selfinstruct.cli.as_it_was import as_it_was
    from selfinstruct.steps.training.plan import process_count

    _check(only_plan, masks, launch, **how)
    if recipe is not None and not data:
        raise UserError("--recipe goes with --data; a run has its own recipe, changed by --set")
    if process_count() > 1:  # one of several, started by a launcher; the dataset is written
        given = {"--data": data, "--base": base, "--set": overrides, "--processes": processes}
        _one_of_several({**given, "--plan": only_plan, "--show-masks": masks, "--launch": launch})
        _train(Run(run), force, as_json)
        return
    if base is not None:
        overrides = (*overrides, f"student.base={json.dumps(base)}")  # it is read as YAML
    with as_it_was(run):
        opened, asked = _opened(run, data, recipe, overrides, only_plan or masks is not None)
        student = _ready(opened, asked, here=launch is None)
        if masks is not None:
            _masks(opened, asked, masks, as_json)
            return
        processes = processes or _processes(student)
        if launch is not None:
            _launch(opened, launch, processes, **how)
        elif only_plan:
            plan = opened.plan_student(
                *asked, processes=processes, sharded=how["sharding"] != "ddp"
            )
            _print_plan(plan, student, as_json)
        elif processes > 1:
            _start(opened, processes, force, as_json)
        else:
            _train(opened, force, as_json)


def _one_of_several(given: Mapping[str, object]) -> None:
    """Raises `UserError` for an option that each process would act on, or leave out."""
    for name, value in given.items():
        if value:
            raise UserError(
                f"this is one of several processes: give {name} to one process first, such as with "
                "--launch torchrun, and start what it prints"
            )


def _opened(
    run: str, data: Sequence[str], recipe: str | None, overrides: Sequence[str], asks: bool
) -> tuple[Run, Sequence[str]]:
    """The run, made or changed as is wished, and the settings that only a question has."""
    from selfinstruct.api import Run
    from selfinstruct.engine.folder import RunFolder

    if not data:
        opened = Run(run)
        if asks:
            return opened, overrides
        opened.configure(*overrides)
        return opened, ()
    if asks and RunFolder(run).recipe_path.is_file():
        opened = Run(run)
        return opened, (_asked(opened, data, recipe, overrides),)
    return Run.from_data(data, run, recipe, overrides=overrides), ()


def _ready(run: Run, asked: Sequence[str], *, here: bool) -> StudentConfig:
    """The student that is meant, once the dataset is written.

    What it needs of the machine is looked for first, where it is trained `here`.
    """
    from selfinstruct.cli.needs import check_training
    from selfinstruct.core.recipe_file import override_recipe

    meant = override_recipe(run.recipe, asked)
    student = meant.need_student()
    if here:
        check_training(meant)
    made = run.write_dataset()
    _say_left_out(made)
    if not made.held_out and meant.dataset.held_out:
        say_aside("no record is held out, so there is nothing to evaluate on")
    return student


def _asked(run: Run, data: Sequence[str], recipe: str | None, overrides: Sequence[str]) -> str:
    """The student that is asked about, as one setting.

    Raises `UserError` where the run would have to be changed for it.
    """
    from selfinstruct.core.anchored import anchored
    from selfinstruct.core.recipe_file import data_recipe

    asked = anchored(data_recipe(data, run.folder.path, recipe or run.recipe, overrides))
    alone = {"student": None}
    if asked.model_copy(update=alone) != anchored(run.recipe).model_copy(update=alone):
        raise UserError(
            f"{run.folder.path} is on other data or has other settings, and --plan and "
            "--show-masks change nothing; give another folder, or only settings of student"
        )
    return f"student={'null' if asked.student is None else asked.student.model_dump_json()}"


def _say_left_out(made: DatasetSummary) -> None:
    """Name the rows of given data that were left out."""
    if not made.faulty:
        return
    for fault in made.faults[:FAULTS_SAID]:
        click.echo(f"left out: {fault}", err=True)
    if made.faulty > FAULTS_SAID:
        click.echo(f"left out: {made.faulty - FAULTS_SAID:,} more rows like these", err=True)


def _masks(run: Run, overrides: Sequence[str], count: int, as_json: bool) -> None:
    shown = run.shown_masks(count, *overrides)
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(shown))
        return
    from selfinstruct.cli.masks import print_masks

    print_masks(shown)


def _check(
    only_plan: bool, masks: int | None, launch: str | None, sharding: str, nodes: int, go: bool
) -> None:
    """Raises `UserError` for options that would be ignored."""
    given = {"--plan": only_plan, "--show-masks": masks is not None, "--launch": launch is not None}
    asked = [name for name, there in given.items() if there]
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)} are {len(asked)} questions: give one of them")
    if launch is None and (go or nodes > 1 or (sharding != "ddp" and not only_plan)):
        raise UserError(
            "--go, --nodes and --sharding go with --launch torchrun, accelerate or slurm"
        )


def _processes(student: StudentConfig) -> int:
    from selfinstruct.steps.processes import gpus_to_use
    from selfinstruct.steps.training.runtime import check_packages

    check_packages("training a student")
    return gpus_to_use(student.batch_size, student.device)


def _print_plan(plan: Outlook, student: StudentConfig, as_json: bool) -> None:
    if as_json:
        import msgspec

        print_json({**msgspec.to_builtins(plan), "fits": plan.fits})
        return
    from selfinstruct.cli.training_plan import print_plan

    print_plan(plan, student.base_name)


def _launch(run: Run, launcher: Any, processes: int, sharding: Any, nodes: int, go: bool) -> None:
    from selfinstruct.steps.launch import plan_launch
    from selfinstruct.steps.training.plan import share_of

    if run.recipe.student is not None:
        share_of(run.recipe.student.batch_size, processes * nodes)
    launch = plan_launch(
        launcher, run.folder.path, sharding=sharding, processes=processes, nodes=nodes
    )
    for name, text in launch.files.items():
        path = run.folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        click.echo(f"wrote {path}", err=True)
    click.echo(launch.line)
    if go:
        if sharding == "zero3" and importlib.util.find_spec("deepspeed") is None:
            raise UserError(
                "--sharding zero3 needs DeepSpeed, which is not here: pip install deepspeed"
            )
        try:
            raise SystemExit(subprocess.run(launch.command, check=False).returncode)
        except FileNotFoundError:
            raise UserError(f"{launch.command[0]} is not on this machine") from None


def _start(run: Run, processes: int, force: bool, as_json: bool) -> None:
    """Train in several processes of this machine."""
    from selfinstruct.steps.launch import train_command
    from selfinstruct.steps.processes import run_processes

    run.check_student(processes)  # each of them would say the same
    options = [*(["--force"] if force else []), *(["--json"] if as_json else [])]
    code = run_processes([*train_command(run.folder.path), *options], processes)
    if code:
        sys.exit(code)


def _train(run: Run, force: bool, as_json: bool) -> None:
    from selfinstruct.cli.training_panel import training_panel
    from selfinstruct.steps.training.plan import is_main_process

    if not is_main_process():  # the first process speaks for all
        run.train_student(force=force)
        return
    if as_json:
        run.train_student(force=force)
        print_json(run.folder.read_json(run.folder.student / "training.json"))
        return
    with training_panel(run.recipe.name, say_aside) as told:
        summary = run.train_student(force=force, on_progress=told)
    for note in summary.notes:
        click.echo(note)
    click.echo(f"student: {run.folder.student}")
