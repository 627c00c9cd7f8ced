"""Options that people know from other trainers: LoRA+, NEFTune, and the limit on gradients."""

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
from tests.families import make_family
from tests.test_train_families import PLAN, Student, teach
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
    """Ctrl-C in its fifth step of eight: two learning rates and the noise go on where they were."""
    student = {
        "epochs": 4, "batch_size": 4, "save_steps": 2, "lora_plus_ratio": 8, "neftune_alpha": 5,
        "merge": False,
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
