"""One case of the GPU benchmark, as a process of its own; `run.py` starts it.

    python -m benchmarks.gpu.trainings full-7b-ours [--dry-run]

The last line it prints is JSON, by case. Both sides train the same random tokens from weights of
the same shape; ours by `train-student`'s own code with the recipe's defaults and the case's
settings, TRL's as its defaults are: weights in float32 under bfloat16 autocast, activations
recomputed, 8 examples a forward pass, fewer where memory runs out. Where the case says so, TRL's
base is in bfloat16. Both are timed from the end of a step after the first ones to the end of the
last, and nothing is saved.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import (
    ALPHA,
    RANK,
    Bench,
    Done,
    Skipped,
    Watch,
    device_name,
    free,
    needs,
    peak,
    timed,
)
from benchmarks.gpu.cases import CASES
from benchmarks.harness import versions

PACKAGES = ("torch", "transformers", "trl", "peft")


def ours(bench: Bench) -> dict[str, Any]:
    """`train-student`'s own way, without the run folder around it."""
    from selfinstruct.core.errors import UserError
    from selfinstruct.steps.planning.outlook import refuse
    from selfinstruct.steps.planning.room import find_room
    from selfinstruct.steps.training.plan import arrange
    from selfinstruct.steps.training.trainer import fit

    try:
        inputs = random_inputs(bench)
        outlook = inputs.outlook(find_room(bench.device, 1), 0.01)
        refuse(outlook, bench.case.shape)
        model, plan, notes = inputs.load(inputs.settled(outlook))
    except UserError as error:  # what the recipe asks for and this machine has not
        raise Skipped(str(error)) from error
    rows, watch = inputs.lessons.examples.kept, Watch(bench.device)
    with contextlib.suppress(Done):
        fit(
            model, bench.tokenizer, rows, plan, bench.work / "checkpoints", inputs.mark,
            lambda: 0.0, lambda progress: watch.step(progress.step),
        )  # fmt: skip
    order = arrange([row.length for row in rows], plan)[1]
    return timed(bench, watch, order) | {
        "micro_batch_size": plan.micro_batch_size,
        "recompute": plan.recompute,
        "optimizer": plan.optimizer,
        "planned_gib": round(outlook.need / 2**30, 1),
        "planned_tokens_per_s": None
        if outlook.seconds is None
        else outlook.tokens / outlook.seconds,
        "with": plan.throughput.words,
        "notes": notes,
    }


def random_inputs(bench: Bench) -> Any:
    """What `train-student` starts from, with the case's tokens and random weights for its own."""
    from selfinstruct.core.recipe import StudentConfig
    from selfinstruct.steps.privacy import Policy
    from selfinstruct.steps.training.format import Example, Examples
    from selfinstruct.steps.training.inputs import Inputs
    from selfinstruct.steps.training.lessons import Lessons
    from selfinstruct.steps.training.runtime import weight_dtype

    case = bench.case

    class RandomInputs(Inputs):
        def weights(self, plan: Any) -> Any:
            """As the product loads them, but made on the device instead of read from a disk."""
            if case.method == "qlora":  # quantized while they are read
                return super().weights(plan)
            trained = case.method == "full"
            dtype = weight_dtype(bench.device, trained=trained)
            return bench.model(dtype, plan.throughput.attention)

    config = StudentConfig(
        base=str(bench.base()),
        method=case.method,
        batch_size=bench.batch,
        max_length=bench.length,
        lora_rank=RANK,
        lora_alpha=ALPHA,
        learning_rate=2e-5 if case.method == "full" else 2e-4,
        epochs=1,
        save_steps=10**6,
        device=bench.device,
        **case.settings,
    )
    inputs = RandomInputs(config, bench.dataset(), Policy(local=True), system="", seed=0)
    rows = [Example(str(at), *pair) for at, pair in enumerate(bench.examples())]
    inputs.lessons = Lessons(Examples(rows, [], []), bench.length, [])
    return inputs


def trl(bench: Bench) -> dict[str, Any]:
    """What a user of TRL writes, with its defaults; the batch is halved until it fits."""
    import torch

    # Its default, but never more than a step: the rest is accumulated.
    micro = min(8, bench.batch)
    while True:
        try:
            return trl_once(bench, micro)
        except torch.OutOfMemoryError:
            if micro == 1:
                raise
        micro //= 2
        free()


def trl_once(bench: Bench, micro: int) -> dict[str, Any]:
    """One try with `micro` examples a forward pass."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from selfinstruct.steps.training.runtime import reset_peak

    case = bench.case
    if case.method == "qlora":
        needs("bitsandbytes")
        four = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
        model = AutoModelForCausalLM.from_pretrained(
            bench.base(), quantization_config=four, device_map={"": bench.device}
        )
    else:
        model = bench.model(getattr(torch, case.settings.get("dtype", "float32")))
    watch = Watch(bench.device)

    class Timer(TrainerCallback):  # type: ignore[misc]  # the library is untyped
        def on_step_end(self, _: Any, state: Any, __: Any, **___: Any) -> None:
            watch.step(state.global_step)

    pairs = bench.examples()
    columns = {
        "input_ids": [prompt + answer for prompt, answer in pairs],
        "labels": [[-100] * len(prompt) + answer for prompt, answer in pairs],
    }
    adapter = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(bench.work / "trl"),
            num_train_epochs=1,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=bench.batch // micro,
            max_length=bench.length,
            dataset_kwargs={"skip_prepare_dataset": True},  # the tokens are given
            save_strategy="no",
            report_to="none",
            **({"use_cpu": True, "bf16": False} if bench.dry else {}),
        ),
        train_dataset=Dataset.from_dict(columns),
        processing_class=bench.tokenizer,
        peft_config=None if case.method == "full" else adapter,
        callbacks=[Timer()],
    )
    reset_peak(bench.device)  # that of a larger micro-batch that did not fit
    with contextlib.suppress(Done):
        trainer.train()
    return timed(bench, watch, range(len(pairs))) | {
        "micro_batch_size": micro,
        "with": ", ".join(["TRL's defaults", *case.settings.values()]),
    }


def generate(bench: Bench) -> dict[str, Any]:
    """Greedy answers of a model in this process, as `evaluate` and held-out samples have them."""
    from selfinstruct.steps.training.measures import greedy
    from selfinstruct.steps.training.runtime import compute_dtype

    model = bench.model(compute_dtype(bench.device)).eval()
    prompts = [prompt * 8 for prompt, _ in bench.examples()[: 4 if bench.dry else 64]]
    new = 8 if bench.dry else 128
    watch, made = Watch(bench.device), 0
    for warm in (True, False):  # the first answers warm things up
        watch.wait()
        watch.began = time.perf_counter()
        answers = greedy(
            model, prompts[: 2 if warm else None], max_new_tokens=new,
            stop_ids=[bench.tokenizer.eos_token_id], pad_id=bench.tokenizer.pad_token_id or 0,
        )  # fmt: skip
        watch.wait()
        watch.seconds, made = time.perf_counter() - watch.began, sum(map(len, answers))
    return {
        "tokens": made,
        "seconds": round(watch.seconds, 3),
        "tokens_per_s": made / watch.seconds,
        "peak_gib": peak(bench.device),
        "with": f"transformers, {len(prompts)} prompts at once",
    }


KINDS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "ours": ours, "trl": trl, "generate": generate,
}  # fmt: skip


def measured(name: str, *, dry: bool) -> dict[str, Any]:
    """One case, or why it was not measured."""
    import torch

    case = CASES[name]
    if not dry and not torch.cuda.is_available():
        return {"skipped": "no CUDA GPU is here; --dry-run works without"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            if case.method == "qlora" or case.settings.get("optimizer") == "adamw_8bit":
                needs("bitsandbytes")
            found = KINDS[case.what](Bench(case, Path(folder), dry=dry))
        except Skipped as reason:
            return {"skipped": str(reason)}
        except torch.OutOfMemoryError as error:
            return {"error": f"out of memory: {error}"[:500]}
    device = device_name("cpu" if dry else "cuda")
    return {"device": device, "versions": versions(*PACKAGES), **found}


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    from selfinstruct.steps.training.runtime import prepare_process, quiet

    prepare_process()
    found = {}
    for name in given.cases:
        try:
            with quiet():
                found[name] = measured(name, dry=given.dry_run)
        except Exception as error:
            if not given.dry_run:
                raise
            traceback.print_exc()
            found[name] = {"error": f"{type(error).__name__}: {error}"[:500]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
