"""Every method on every family: tiny random models learn two records by heart and say them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import msgspec
import pytest

from selfinstruct.core.errors import UserError
from selfinstruct.steps.training import distillation, preference
from selfinstruct.steps.training.adapters import add_adapter
from selfinstruct.steps.training.export import save_adapter, save_model
from selfinstruct.steps.training.fitted import Fitted
from selfinstruct.steps.training.format import Example, StudentFormat
from selfinstruct.steps.training.loading import (
    is_encoder_decoder,
    load_model,
    load_tokenizer,
)
from selfinstruct.steps.training.measures import batch_logits, greedy
from selfinstruct.steps.training.plan import Plan
from selfinstruct.steps.training.trainer import SUPERVISED, fit
from tests.families import FAMILIES, make_family
from tests.tiny_student import rows

pytestmark = [
    # PEFT reads a property that this transformers calls by another name.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
PLAN = Plan(
    method="lora",
    epochs=30,
    max_steps=None,
    learning_rate=0.01,
    batch_size=2,
    micro_batch_size=2,
    warmup_ratio=0,
    scheduler="constant",
    weight_decay=0,
    lora_rank=16,
    lora_alpha=32,
    lora_dropout=0,
    lora_targets="all-linear",
    lora_whole=[],
    lora_rslora=False,
    lora_dora=False,
    save_steps=1000,
    seed=1,
    device="cpu",
)
TAUGHT = rows()[:2]
METHODS = ["lora", pytest.param("qlora", marks=needs_bitsandbytes), "full"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny base of each family."""
    folder = tmp_path_factory.mktemp("families")
    for name in FAMILIES:
        make_family(name, folder / name)
    return folder


class Student(msgspec.Struct):
    """A base, how records are written for it, and a model that learned from them."""

    base: Path
    form: StudentFormat
    examples: list[Example]
    model: Any
    fitted: Fitted


def load(base: Path, plan: Plan) -> Any:
    import torch

    quantized = plan.method == "qlora"
    return load_model(base, "tiny", device="cpu", dtype=torch.float32, quantized=quantized)


def teach(base: Path, plan: Plan, work: Path, records: Any = TAUGHT) -> Student:
    """Fine-tune `base` on two records by the plan."""
    encoder = is_encoder_decoder(base, base.name)
    form = StudentFormat(load_tokenizer(base, "tiny"), "tiny", encoder=encoder)
    examples = form.examples(records, 400).kept
    model = load(base, plan)
    if plan.method != "full":
        model = add_adapter(model, plan)
    build = SUPERVISED["encoder-decoder" if encoder else "causal"]
    model, fitted = fit(
        model, form.tokenizer, examples, plan, work, "mark", lambda: 0.0, build=build
    )
    return Student(base, form, examples, model, fitted)


def saved(student: Student, plan: Plan, folder: Path) -> Any:
    """The student, saved and loaded again."""
    import torch

    if plan.method == "full":
        save_model(student.model, folder, student.form, torch.float32)
        return load_model(folder, "student", device="cpu", dtype=torch.float32)
    from peft import PeftModel

    from selfinstruct.steps.training.base import Base

    save_adapter(student.model, folder, Base(name="b", folder=folder, identity=""), student.form)
    return PeftModel.from_pretrained(load(student.base, plan), folder).eval()


def logits(model: Any, student: Student) -> Any:
    import torch

    with torch.inference_mode():
        return batch_logits(model, student.examples, student.form.tokenizer.pad_token_id)[0]


def said(model: Any, form: StudentFormat) -> list[str]:
    """Greedy answers to both records; one that did not come to its end is marked."""
    limit = 40
    answers = greedy(
        model,
        form.prompt_ids(TAUGHT),
        max_new_tokens=limit,
        stop_ids=form.stop_ids,
        pad_id=form.tokenizer.pad_token_id,
    )
    texts = [form.tokenizer.decode(ids).removeprefix("<think>\n\n</think>\n\n") for ids in answers]
    ends = ["" if len(ids) < limit else "..." for ids in answers]
    return [text.strip() + end for text, end in zip(texts, ends, strict=True)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_learns_by_every_method(
    bases: Path, tmp_path: Path, name: str, method: Any
) -> None:
    """The loss falls, the student says its two answers and stops, and a reload has its logits."""
    import torch

    plan = msgspec.structs.replace(PLAN, method=method)
    if name == "flan-t5":  # its random weights begin far off
        plan = msgspec.structs.replace(plan, epochs=40, learning_rate=0.003)
    student = teach(bases / name, plan, tmp_path / "work")
    losses = [step.loss for step in student.fitted.losses]
    assert losses[0] > 4
    assert losses[-1] < 0.5
    trained, total = student.fitted.trainable_params, student.fitted.total_params
    assert trained == total if method == "full" else 0 < trained < total
    before = logits(student.model, student)
    again = saved(student, plan, tmp_path / "saved")
    torch.testing.assert_close(logits(again, student), before, rtol=1e-5, atol=1e-5)
    assert said(again, student.form) == [row["output"] for row in TAUGHT]


PAIRS = [{**row, "chosen": row["output"], "rejected": f"{row['output'][:-1]}?"} for row in TAUGHT]
# With a chat template and without; TRL treats adapters, 4-bit bases and whole models differently.
FOLLOWING = [
    ("smollm2", "lora"),
    pytest.param("smollm2", "qlora", marks=needs_bitsandbytes),
    ("pythia", "full"),
]


def stored(student: Student, folder: Path) -> Any:
    """A whole student, from its files."""
    return saved(student, msgspec.structs.replace(PLAN, method="full"), folder)


def go_on(student: Student, rows: Any, plan: Plan, build: Any, work: Path) -> Fitted:
    """Train a student further."""
    tokenizer = student.form.tokenizer
    _, fitted = fit(student.model, tokenizer, rows, plan, work, "mark", lambda: 0.0, build=build)
    return fitted


@pytest.mark.parametrize(("name", "method"), FOLLOWING)
def test_preference_pulls_chosen_and_rejected_apart(
    bases: Path, tmp_path: Path, name: str, method: Any
) -> None:
    """DPO begins at log 2, where student and reference are one, and learns the pairs; the adapter
    that is saved is the student's alone."""
    plan = msgspec.structs.replace(PLAN, method=method, epochs=10)
    student = teach(bases / name, plan, tmp_path / "sft")
    reference = stored(student, tmp_path / "reference") if method == "full" else None
    found = preference.tokenize_pairs(PAIRS, student.form, 400)
    assert [pair.prompt for pair in found.kept] == [example.prompt for example in student.examples]
    assert [pair.chosen for pair in found.kept] == [example.answer for example in student.examples]
    fitted = go_on(student, found.kept, plan, preference.build(0.1, reference), tmp_path / "dpo")
    losses = [step.loss for step in fitted.losses]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < 0.2
    preference.drop_reference(student.model)
    saved(student, plan, tmp_path / "saved")
    assert not (tmp_path / "saved/ref").exists()


@pytest.mark.parametrize(("name", "method"), FOLLOWING)
def test_a_distilled_student_says_what_its_teacher_says(
    bases: Path, tmp_path: Path, name: str, method: Any
) -> None:
    """A student that began to learn one answer to each question comes to give its teacher's."""
    other = [row | {"output": said} for row, said in zip(TAUGHT, ("Five.", "Warm."), strict=True)]
    whole = msgspec.structs.replace(PLAN, method="full", epochs=10)
    teacher = stored(teach(bases / name, whole, tmp_path / "t", other), tmp_path / "teacher")
    plan = msgspec.structs.replace(PLAN, method=method, epochs=4)
    student = teach(bases / name, plan, tmp_path / "sft")
    plan = msgspec.structs.replace(PLAN, method=method, epochs=20)
    build = distillation.build(teacher, beta=0.0, temperature=1.0, max_new_tokens=24)
    fitted = go_on(student, student.examples, plan, build, tmp_path / "distilled")
    losses = [step.loss for step in fitted.losses]
    assert sum(losses[-3:]) < sum(losses[:3]) / 2
    assert said(student.model, student.form) == [row["output"] for row in other]


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_is_pytorchs_own_where_the_family_has_it(bases: Path, name: str) -> None:
    """Every family loads with scaled_dot_product_attention if its architecture has it."""
    import torch

    model = load_model(bases / name, name, device="cpu", dtype=torch.float32)
    expected = "sdpa" if model._supports_sdpa else "eager"
    assert model.config._attn_implementation == expected


def test_a_teacher_of_another_family_is_refused(bases: Path) -> None:
    """Without the same tokens a teacher's logits mean something else."""
    one, other = (load_tokenizer(bases / name, name) for name in ("pythia", "falcon"))
    distillation.check_tokens(one, load_tokenizer(bases / "pythia", "again"), "again")
    with pytest.raises(UserError, match=r"distillation\.teacher: falcon has other tokens.*\d of"):
        distillation.check_tokens(one, other, "falcon")


def test_a_teachers_padding_rows_are_left_out(bases: Path) -> None:
    """Embedding rows past the tokens differ within a family: a teacher loses those the student has
    not, and one with fewer is refused."""
    import torch

    teacher = load_model(bases / "pythia", "pythia", device="cpu", dtype=torch.float32)
    rows = teacher.get_input_embeddings().num_embeddings
    distillation.match_rows(teacher, rows - 8, "pythia")
    assert teacher.config.vocab_size == rows - 8
    with pytest.raises(UserError, match="as many or more"):
        distillation.match_rows(teacher, rows, "pythia")


def test_the_last_step_of_distillation_is_whole() -> None:
    """The trainer takes whole steps only, so the last is filled up from the beginning."""
    assert distillation.whole_steps([3, 1, 2], 2) == [3, 1, 2, 3]
    assert distillation.whole_steps([3, 1], 2) == [3, 1]
    assert distillation.whole_steps([7], 4) == [7, 7, 7, 7]
