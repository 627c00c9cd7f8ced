"""Options that people know from other trainers: LoRA+, NEFTune, schedules, AdamW's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from selfinstruct.core.errors import RecipeError
from selfinstruct.core.sections.student import StudentConfig
from selfinstruct.stages.train import train_student
from selfinstruct.steps.training.progress import TrainProgress
from selfinstruct.steps.training.runtime import check_optimizer
from selfinstruct.steps.training.setup import shared_arguments
from tests.families import make_family
from tests.test_train_families import PLAN, Student, needs_bitsandbytes, teach
from tests.tiny_student import make_base, make_run

# PEFT reads a property that this transformers calls by another name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def taught(base: Path, work: Path, **settings: Any) -> Student:
    return teach(base, msgspec.structs.replace(PLAN, **settings), work)


def adapter(student: Student, part: str) -> Any:
    """All the numbers of the adapter's matrices called `part`, "lora_A" or "lora_B"."""
    import torch

    found = [p.detach().flatten() for n, p in student.model.named_parameters() if part in n]
    return torch.cat(found)


def test_lora_plus_moves_the_second_matrices_further(base: Path, tmp_path: Path) -> None:
    """After a step, Adam's first, they lie as many times as far from zero as the ratio says."""
    plain = taught(base, tmp_path / "a", max_steps=1, learning_rate=1e-3)
    plus = taught(base, tmp_path / "b", max_steps=1, learning_rate=1e-3, lora_plus_ratio=16.0)
    moved = [adapter(student, "lora_B").abs().max().item() for student in (plain, plus)]
    assert moved == pytest.approx([1e-3, 16e-3], rel=0.01)
    assert adapter(plain, "lora_A").equal(adapter(plus, "lora_A"))  # their gradient is still zero


def test_a_limit_on_gradients_holds_a_step_back(base: Path, tmp_path: Path) -> None:
    """Almost nothing let through is almost nothing learned; 0 lets all through."""
    free = taught(base, tmp_path / "free", max_steps=3, max_grad_norm=0.0)
    held = taught(base, tmp_path / "held", max_steps=3, max_grad_norm=1e-12)
    assert adapter(held, "lora_B").abs().max() < 1e-3 * adapter(free, "lora_B").abs().max()


def test_neftune_is_noise_in_training_alone(base: Path, tmp_path: Path) -> None:
    """The first loss differs from that without noise, and is the same each time; no noise stays."""
    plain = taught(base, tmp_path / "a", max_steps=1)
    noisy = taught(base, tmp_path / "b", max_steps=1, neftune_alpha=50.0)
    again = taught(base, tmp_path / "c", max_steps=1, neftune_alpha=50.0)
    assert noisy.fitted.losses[0].loss == again.fitted.losses[0].loss
    assert noisy.fitted.losses[0].loss != plain.fitted.losses[0].loss
    assert not noisy.model.get_input_embeddings()._forward_hooks


def test_a_training_with_them_goes_on_as_if_never_stopped(base: Path, tmp_path: Path) -> None:
    """Ctrl-C in its fifth step of eight: rates, moments and noise go on where they were."""
    student = {
        "epochs": 4, "batch_size": 4, "save_steps": 2, "lora_plus_ratio": 8, "neftune_alpha": 5,
        "merge": False, "scheduler": "wsd", "decay_ratio": 0.5, "min_learning_rate_ratio": 0.1,
        "adam_beta1": 0.8, "adam_beta2": 0.95,
    }  # fmt: skip
    whole = make_run(tmp_path / "whole", base, student=student)
    stopped = make_run(tmp_path / "stopped", base, student=student)

    def stop(progress: TrainProgress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_student(stopped, on_progress=stop)
    assert [one.loss for one in train_student(stopped).losses] == [
        one.loss for one in train_student(whole).losses
    ]
    weights = [run.student / "adapter/adapter_model.safetensors" for run in (whole, stopped)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def rates(student: Student) -> list[float]:
    return [one.learning_rate for one in student.fitted.losses]


@pytest.mark.parametrize("family", ["tiny", "flan-t5"])
def test_a_rate_falls_in_the_last_steps_alone(base: Path, tmp_path: Path, family: str) -> None:
    """Warmup, stable, decay: three steps of ten fall, in a line to a tenth of the rate."""
    model = base if family == "tiny" else make_family(family, tmp_path / "base")
    schedule = {"scheduler": "wsd", "warmup_ratio": 0.2, "decay_ratio": 0.3}
    found = taught(
        model, tmp_path / "a", **schedule, max_steps=10, learning_rate=1.0,
        min_learning_rate_ratio=0.2,
    )  # fmt: skip
    assert rates(found) == pytest.approx([0.2, 0.6, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4])


def test_a_short_decay_is_one_step(base: Path, tmp_path: Path) -> None:
    """Where a tenth of the steps is less than one, the last one still falls."""
    found = taught(base, tmp_path, scheduler="wsd", max_steps=4, learning_rate=1e-3)
    assert rates(found) == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4])
    everything = taught(base, tmp_path / "b", scheduler="wsd", decay_ratio=1.0, max_steps=4)
    assert rates(everything) == pytest.approx([0.01, 0.0075, 0.005, 0.0025])


def test_a_cosine_ends_at_its_least_rate(base: Path, tmp_path: Path) -> None:
    """It is the cosine without one, in what is above the least rate."""
    plain = taught(base, tmp_path / "a", scheduler="cosine", max_steps=6, learning_rate=1.0)
    least = taught(
        base, tmp_path / "b", scheduler="cosine", max_steps=6, learning_rate=1.0,
        min_learning_rate_ratio=0.5,
    )  # fmt: skip
    assert rates(least) == pytest.approx([0.5 + rate / 2 for rate in rates(plain)])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora_plus_ratio": 16.0},
        {"method": "full"},
        pytest.param({"optimizer": "adamw_8bit"}, marks=needs_bitsandbytes),
    ],
)
def test_adamw_has_the_numbers_of_the_recipe(
    base: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Whatever makes the optimizer: its state in the checkpoint names them."""
    import torch

    numbers = {"adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-6}
    taught(base, tmp_path, max_steps=1, save_steps=1, **numbers, **settings)
    (path,) = tmp_path.rglob("optimizer.pt")
    for group in torch.load(path)["param_groups"]:
        assert (group["betas"], group["eps"]) == ((0.8, 0.95), 1e-6)


def test_what_follows_fine_tuning_has_them_too(base: Path, tmp_path: Path) -> None:
    """Each training's own rate falls to its own share, and AdamW's numbers are the recipe's."""
    from trl import DistillationConfig, DPOConfig

    (tmp_path / "pairs.jsonl").write_text(
        '{"prompt": "Name a colour", "chosen": "Blue.", "rejected": "Seven."}\n'
    )
    student = {
        "scheduler": "wsd", "decay_ratio": 1.0, "min_learning_rate_ratio": 0.5, "merge": False,
        "max_steps": 1, "warmup_ratio": 0.0,
        "distillation": {"teacher": str(base), "learning_rate": 1.0e-3, "max_new_tokens": 4},
        "preference": {"data": str(tmp_path / "pairs.jsonl"), "epochs": 2.0},
    }  # fmt: skip
    run = make_run(tmp_path / "run", base, student=student)
    summary = train_student(run)
    card = (run.student / "adapter/README.md").read_text()
    assert "| min learning rate ratio | 0.5 |" in card
    assert "adam beta1" not in card  # it is the usual one
    assert [[one.learning_rate for one in stage.losses] for stage in summary.later] == [
        pytest.approx([1e-3, 7.5e-4]),
        pytest.approx([5e-6, 3.75e-6]),
    ]
    plan = msgspec.structs.replace(PLAN, adam_beta1=0.8, adam_beta2=0.95)
    shared = shared_arguments(plan, 4, tmp_path, recompute=False, dtype=None)
    for kind in (DPOConfig, DistillationConfig):
        arguments = kind(**shared)
        assert (arguments.adam_beta1, arguments.adam_beta2) == (0.8, 0.95)


def test_no_noise_is_promised_to_an_encoder(tmp_path: Path) -> None:
    """The library would put it on embeddings that T5 does not use, without a word."""
    t5 = make_family("flan-t5", tmp_path / "base")
    folder = make_run(tmp_path / "run", t5, student={"neftune_alpha": 5})
    with pytest.raises(RecipeError, match=r"neftune_alpha.*is an encoder-decoder"):
        train_student(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_plus_ratio": 16, "method": "full"}, "lora_plus_ratio is for an adapter"),
        ({"lora_plus_ratio": 0.5}, "greater than or equal to 1"),
        ({"neftune_alpha": 5, "packing": True}, "neftune_alpha goes by the length of a row"),
        ({"max_grad_norm": -1}, "greater than or equal to 0"),
        ({"min_learning_rate_ratio": 0.1, "scheduler": "linear"}, "for the schedulers cosine and"),
        ({"min_learning_rate_ratio": 1.0}, "less than 1"),
        ({"decay_ratio": 0.1}, "decay_ratio is for the scheduler wsd"),
        ({"scheduler": "wsd", "decay_ratio": 0.9, "warmup_ratio": 0.2}, "more than all steps"),
        ({"adam_beta2": 1.0}, "less than 1"),
    ],
)
def test_what_cannot_go_together_is_refused(settings: dict[str, Any], message: str) -> None:
    """An option that would be ignored, or mean something else, is an error."""
    with pytest.raises(ValidationError, match=message):
        StudentConfig.model_validate({"base": "b"} | settings)


def test_a_split_model_has_one_learning_rate() -> None:
    """Its optimizer is made after the model was split, by the library."""
    with pytest.raises(RecipeError, match="lora_plus_ratio"):
        check_optimizer("adamw", sharded=True, split_rates=True)
