"""Throughput options: what is in effect where, packing's proof, workers, compile, and refusals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from selfinstruct.core.errors import MissingDependency, RecipeError, UserError
from selfinstruct.stages.train import plan_student, read_summary, train_student
from selfinstruct.steps.planning.job import Job
from selfinstruct.steps.planning.model import ModelSize
from selfinstruct.steps.planning.outlook import foresee
from selfinstruct.steps.planning.room import Room
from selfinstruct.steps.planning.throughput import Throughput, Wanted, choose
from selfinstruct.steps.training import packing
from selfinstruct.steps.training.halving import split
from selfinstruct.steps.training.loading import load_model, use_liger
from tests.families import CAUSAL, make_family
from tests.kills import differences, finish, kill_at, make
from tests.test_train_families import PLAN, needs_bitsandbytes, teach
from tests.tiny_student import make_base, make_run, rows

pytestmark = [
    # PEFT reads a property that this transformers calls by another name.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]
APART = [name for name in CAUSAL if name != "falcon"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny base of each family that is asked for here."""
    folder = tmp_path_factory.mktemp("families")
    for name in [*CAUSAL, "flan-t5"]:
        make_family(name, folder / name)
    return folder


def chosen(base: Path, device: str = "cpu", *, bf16: bool = True, **wanted: Any) -> Throughput:
    return choose(base, base.name, device, Wanted(**wanted), bf16=bf16)


def package(folder: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    """Put Python files into `folder`, and have it imported from."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(folder)


@pytest.fixture
def liger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package in Liger's place that knows Llama and notes what it is asked to patch."""
    for name in [name for name in sys.modules if name.startswith("liger_kernel")]:
        monkeypatch.delitem(sys.modules, name)
    package(
        tmp_path / "packages",
        monkeypatch,
        {
            "liger_kernel/__init__.py": "",
            "liger_kernel/transformers/__init__.py": "patched = []\n"
            "def _apply_liger_kernel_to_instance(model, **options):\n"
            "    patched.append((type(model).__name__, options))\n",
            "liger_kernel/transformers/monkey_patch.py": "MODEL_TYPE_TO_APPLY_LIGER_FN = "
            "{'llama': None}\n",
        },
    )
    import liger_kernel.transformers

    yield liger_kernel.transformers
    for name in [name for name in sys.modules if name.startswith("liger_kernel")]:
        del sys.modules[name]


# -- what is in effect -----------------------------------------------------------------------------


def test_defaults_on_a_processor(bases: Path) -> None:
    """The library's attention, grouped batches, no kernels, no workers; in words."""
    found = chosen(bases / "llama-3")
    assert found == Throughput()
    assert found.words == "sdpa attention, micro-batches of similar length, data workers: none"
    assert chosen(bases / "gpt-j").words.startswith("eager attention")


def test_defaults_on_a_bare_gpu(bases: Path) -> None:
    """Without FlashAttention and Liger a GPU gets PyTorch's attention, and two workers."""
    assert chosen(bases / "llama-3", "cuda") == Throughput(workers=2)


def test_flash_attention_packs(
    bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that is in the cache of the `kernels` package is used, and examples are packed."""
    package(tmp_path / "packages", monkeypatch, {"kernels.py": ""})
    monkeypatch.setenv("KERNELS_CACHE", str(tmp_path / "cache"))
    assert not chosen(bases / "llama-3", "cuda").packing
    name = "kernels--kernels-community--flash-attn2"
    (tmp_path / "cache" / name / "snapshots/abc/build").mkdir(parents=True)
    found = chosen(bases / "llama-3", "cuda")
    assert (found.attention, found.packing) == ("flash_attention_2", True)
    assert "examples packed without padding" in found.words
    assert chosen(bases / "llama-3", "cuda", bf16=False).chosen == "sdpa"
    assert chosen(bases / "gpt-j", "cuda", packing=False).packing is False
    assert not chosen(bases / "flan-t5", "cuda").packing
    assert not chosen(bases / "llama-3", "cpu").packing


@pytest.mark.parametrize(
    ("family", "device", "wanted", "said"),
    [
        ("llama-3", "cuda", {"attention": "flash_attention_2"}, "flash_attn"),
        ("llama-3", "cuda", {"attention": "flash_attention_3"}, "flash_attn_interface"),
        ("llama-3", "cpu", {"attention": "flash_attention_2"}, "CUDA GPU with bfloat16"),
        ("llama-3", "cpu", {"attention": "flex_attention"}, "only on CUDA"),
        ("gpt-j", "cpu", {"attention": "sdpa"}, "gpt-j (GPTJForCausalLM)"),
        ("flan-t5", "cpu", {"packing": True}, "flan-t5 is an encoder-decoder"),
    ],
)
def test_what_cannot_be_had(
    bases: Path, family: str, device: str, wanted: dict[str, Any], said: str
) -> None:
    """One line that names the setting, why not, and what to set."""
    with pytest.raises(RecipeError) as error:
        chosen(bases / family, device, **wanted)
    message = str(error.value)
    assert said in message
    assert "set it to auto" in message
    assert len(message.splitlines()) == 1


def test_what_can_be_asked_for(bases: Path) -> None:
    """Attention by name, flex attention with packing on CUDA, a number of workers."""
    assert chosen(bases / "llama-3", attention="eager").chosen == "eager"
    assert chosen(bases / "llama-3", "cuda", attention="flex_attention").packing
    assert chosen(bases / "llama-3", dataloader_workers=3).workers == 3


def test_liger_that_is_missing(bases: Path) -> None:
    """Asked for and not there: the extra is named; left open, it is left out."""
    with pytest.raises(MissingDependency, match=r"selfinstruct\[liger\]"):
        chosen(bases / "llama-3", "cuda", liger=True)
    assert not chosen(bases / "llama-3", "cuda").liger


def test_liger_where_it_is(bases: Path, liger: Any) -> None:
    """Used on CUDA for the families it knows, without its loss; refused elsewhere."""
    import torch

    assert chosen(bases / "llama-3", "cuda").liger
    assert "Liger kernels" in chosen(bases / "llama-3", "cuda").words
    assert not chosen(bases / "llama-3", "cpu").liger
    assert not chosen(bases / "gpt-j", "cuda").liger
    assert not chosen(bases / "llama-3", "cuda", liger=False).liger
    with pytest.raises(RecipeError, match="no kernels for gpt-j"):
        chosen(bases / "gpt-j", "cuda", liger=True)
    with pytest.raises(RecipeError, match="not on cpu"):
        chosen(bases / "llama-3", "cpu", liger=True)
    use_liger(load_model(bases / "llama-3", "tiny", device="cpu", dtype=torch.float32))
    (name, options) = liger.patched[0]
    assert name == "LlamaForCausalLM"
    assert not options["fused_linear_cross_entropy"]


# -- packing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", APART)
def test_packed_examples_do_not_see_each_other(bases: Path, name: str) -> None:
    """Each of three examples in a row has the logits that it has alone."""
    import torch

    model = load_model(bases / name, name, device="cpu", dtype=torch.float32)
    examples = [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15], [6, 5]]
    with torch.inference_mode():
        packed = packing._logits(model, examples)
        alone = [model(torch.tensor([ids])).logits[0] for ids in examples]
    torch.testing.assert_close(packed, torch.cat(alone), rtol=1e-4, atol=1e-4)
    assert packing.keeps_apart(model, "cpu")


def test_examples_that_would_see_each_other(bases: Path, tmp_path: Path) -> None:
    """Falcon's attention lets them: found by trying, refused or left out aloud."""
    import torch

    model = load_model(bases / "falcon", "falcon", device="cpu", dtype=torch.float32)
    assert not packing.keeps_apart(model, "cpu")
    plan = msgspec.structs.replace(PLAN, throughput=Throughput(packing=True))
    changed, notes = packing.settle(model, plan, "falcon", insisted=False)
    assert not changed.throughput.packing
    assert "see each other" in notes[0]
    folder = make_run(tmp_path, bases / "falcon", student={"packing": True, "max_length": "auto"})
    with pytest.raises(UserError, match="falcon lets packed examples see each other") as error:
        train_student(folder)
    assert "set it to auto or false" in str(error.value)


@pytest.mark.usefixtures("float32_processor")
@pytest.mark.parametrize("sparse", [False, True])
def test_packing_changes_no_loss(bases: Path, tmp_path: Path, sparse: bool) -> None:
    """The same steps and losses, no position of padding; accumulation and a short end included."""
    plan = msgspec.structs.replace(
        PLAN, sparse_head=sparse, batch_size=6, micro_batch_size=3, epochs=2
    )
    packed = msgspec.structs.replace(plan, throughput=Throughput(packing=True))
    one, other = (
        teach(bases / "smollm2", which, tmp_path / str(at), rows()).fitted
        for at, which in enumerate((plan, packed))
    )
    assert [step.loss for step in other.losses] == pytest.approx(
        [step.loss for step in one.losses], rel=1e-4
    )
    assert other.padded_tokens == sum(step.tokens for step in other.losses)
    assert other.padded_tokens < one.padded_tokens
    assert other.useful_tokens == one.useful_tokens


def test_a_packed_row_is_cut_between_examples(bases: Path) -> None:
    """Pieces hold whole examples, their own edges, and the labels of the row."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    lengths = [4, 2, 5, 3, 1]
    rows = [{"input_ids": [at + 1] * length} for at, length in enumerate(lengths)]
    collator = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    pieces = split(dict(collator(rows)), 2)
    assert [packing.examples_in(piece) for piece in pieces] == [3, 2]
    for piece, part in zip(pieces, (rows[:3], rows[3:]), strict=True):
        whole = collator(part)
        for name, value in whole.items():
            same = value == piece[name]
            assert same if isinstance(value, int) else same.all(), name


def test_a_packed_row_that_attention_computes_whole_is_planned_so() -> None:
    """Its scores take the square of the row's length; with a kernel that skips, each example's."""
    size = ModelSize(
        parameters=10**8, linear=8 * 10**7, ends=10**5, hidden=512, layers=8, heads=8,
        vocabulary=32_000, stored_scores=True,
    )  # fmt: skip
    job = Job(
        method="lora", rank=8, batch_size=4, micro_batch_size=4, lengths=[64] * 8, epochs=1.0,
        throughput=Throughput(chosen="eager", packing=True),
    )  # fmt: skip
    room = Room(device="cuda", memory=1 << 40, name="NVIDIA H200")
    skipping = Throughput(chosen="flash_attention_2", packing=True)
    squares = foresee(size, job, room)
    skips = foresee(size, msgspec.structs.replace(job, throughput=skipping), room)
    assert squares.padded_tokens == skips.padded_tokens == 8 * 64
    stored = 2 * 8 * 64 * 64 * 2 * 8  # bytes of one example's scores, over heads and layers
    assert squares.memory.activations - skips.memory.activations == (16 - 4) * stored
    assert squares.flops > skips.flops


# -- memory for time -------------------------------------------------------------------------------


def test_recomputing_changes_no_loss(bases: Path, tmp_path: Path) -> None:
    """Activations that are worked out again give the same losses, dropout included."""
    plan = msgspec.structs.replace(PLAN, epochs=4, lora_dropout=0.3)
    again = msgspec.structs.replace(plan, recompute=True)
    one, other = (
        teach(bases / "smollm2", which, tmp_path / str(at)).fitted
        for at, which in enumerate((plan, again))
    )
    assert [step.loss for step in other.losses] == pytest.approx(
        [step.loss for step in one.losses], rel=1e-5
    )


@needs_bitsandbytes
def test_moments_in_8_bits_learn_nearly_the_same(bases: Path, tmp_path: Path) -> None:
    """The losses stay close to AdamW's own, and are not the same."""
    plan = msgspec.structs.replace(PLAN, method="full", learning_rate=1e-3, epochs=6)
    small = msgspec.structs.replace(plan, optimizer="adamw_8bit")
    one, other = (
        [step.loss for step in teach(bases / "smollm2", which, tmp_path / str(at)).fitted.losses]
        for at, which in enumerate((plan, small))
    )
    assert other == pytest.approx(one, rel=0.01)
    assert other != one


def test_8_bits_without_bitsandbytes(
    bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra to install is named; a model that processes share is refused."""
    folder = make_run(tmp_path, bases / "smollm2", student={"optimizer": "adamw_8bit"})
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "bitsandbytes", None)
        with pytest.raises(MissingDependency, match=r"selfinstruct\[qlora\]"):
            train_student(folder)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RecipeError, match=r"student\.optimizer.*set it to adamw"):
        plan_student(folder)


# -- through the stage -----------------------------------------------------------------------------


def test_the_plan_and_the_run_say_what_is_in_effect(bases: Path, tmp_path: Path) -> None:
    """Before and after: attention, packing and workers, in --plan and in training.json."""
    student = {"packing": True, "attention": "eager", "dataloader_workers": 1, "max_steps": 2}
    folder = make_run(tmp_path, bases / "smollm2", student=student)
    plan = plan_student(folder)
    assert plan.padded_tokens == plan.tokens
    words = "eager attention, examples packed without padding, data workers: 1"
    assert plan.throughput.words == words
    train_student(folder)
    summary = read_summary(folder)
    assert summary is not None
    assert f"trained with {words}" in summary.notes
    assert summary.plan.throughput == plan.throughput


def test_workers_change_nothing(bases: Path, tmp_path: Path) -> None:
    """The losses are those without workers to the last digit, dropout included."""
    plan = msgspec.structs.replace(PLAN, epochs=6, lora_dropout=0.3, batch_size=3)
    with_workers = msgspec.structs.replace(plan, throughput=Throughput(workers=2))
    one, other = (
        teach(bases / "smollm2", which, tmp_path / str(at), rows()).fitted
        for at, which in enumerate((plan, with_workers))
    )
    assert [step.loss for step in one.losses] == [step.loss for step in other.losses]


@pytest.mark.slow
def test_a_kill_with_workers_and_packing(tmp_path: Path) -> None:
    """Kill -9, and the same command has the weights of the training never stopped."""
    base = make_base(tmp_path / "base")
    options = {"packing": True, "dataloader_workers": 2}
    whole = make(tmp_path / "whole", base, **options)
    killed = make(tmp_path / "killed", base, **options)
    finish(whole)
    assert kill_at(killed, 17, 0.05)
    finish(killed)
    assert differences(whole, killed) == []


# PyTorch's compiler imports what PyTorch deprecates.
@pytest.mark.usefixtures("float32_processor")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.slow
def test_compiled_training(bases: Path, tmp_path: Path) -> None:
    """torch.compile changes no loss beyond rounding, and leaves a plain model behind."""
    plan = msgspec.structs.replace(PLAN, epochs=2, batch_size=4, sparse_head=True)
    throughput = Throughput(compile=True, packing=True)
    compiled = msgspec.structs.replace(plan, throughput=throughput)
    one, other = (
        teach(bases / "smollm2", which, tmp_path / str(at), rows())
        for at, which in enumerate((plan, compiled))
    )
    assert [step.loss for step in other.fitted.losses] == pytest.approx(
        [step.loss for step in one.fitted.losses], rel=1e-4
    )
    names = [name for name, _ in other.model.named_parameters()]
    assert names == [name for name, _ in one.model.named_parameters()]
