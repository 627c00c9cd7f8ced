"""The plan of a training: what it takes, what fits, and what would."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.core.errors import UserError
from selfinstruct.core.money import from_dollars
from selfinstruct.steps.planning.accelerators import known_gpu
from selfinstruct.steps.planning.batches import micro_batches
from selfinstruct.steps.planning.energy import Meter, used_gpus
from selfinstruct.steps.planning.job import Job, choose_micro
from selfinstruct.steps.planning.memory import GIB, Method, training_memory
from selfinstruct.steps.planning.model import measure_model
from selfinstruct.steps.planning.outlook import Outlook, foresee, refuse
from selfinstruct.steps.planning.room import Room, find_room
from selfinstruct.steps.planning.shapes import STUDENTS
from selfinstruct.steps.planning.speed import Speed, processor_speed, training_seconds
from selfinstruct.steps.planning.throughput import Throughput
from tests.tiny_student import make_base

# PEFT reads a property that this transformers calls by another name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

SHAPES = {shape.name: shape.size for shape in STUDENTS}
H100 = Room(device="cuda", memory=80 * GIB, name="NVIDIA H100 80GB HBM3")


def job(
    method: Method = "lora", micro: int | None = None, length: int = 1024, count: int = 256
) -> Job:
    return Job(
        method=method,
        rank=16,
        batch_size=32,
        micro_batch_size=micro,
        lengths=[length // 2, length] * (count // 2),
        epochs=1.0,
    )  # fmt: skip


# -- the model's size ------------------------------------------------------------------------------


def test_the_size_is_that_of_the_weights(tmp_path: Path) -> None:
    """What is counted from the config alone is what the loaded model and its adapter have."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = make_base(tmp_path)
    size = measure_model(folder, "tiny")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert size.parameters == sum(p.numel() for p in model.parameters())
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    assert size.adapter(4) == adapted.get_nb_trainable_parameters()[0]
    assert (size.layers, size.heads, size.hidden) == (2, 4, 32)


def test_encoder_and_decoder_count_together(tmp_path: Path) -> None:
    """T5's layers are those of both halves, and its tied embeddings count once."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=100, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_decoder_layers=3, num_heads=4
    )
    config.save_pretrained(tmp_path)
    size = measure_model(tmp_path, "t5")
    whole = T5ForConditionalGeneration(config)
    assert size.parameters == sum(p.numel() for p in whole.parameters())
    assert (size.layers, size.encoder_decoder) == (5, True)


def test_a_config_that_is_none_is_refused(tmp_path: Path) -> None:
    """A folder without a config, or with one of no known architecture, names the base."""
    with pytest.raises(UserError, match=r"student\.base: nothing: its config"):
        measure_model(tmp_path, "nothing")
    (tmp_path / "config.json").write_text('{"model_type": "no-such"}')
    with pytest.raises(UserError, match=r"nothing: transformers .* has no architecture no-such"):
        measure_model(tmp_path, "nothing")


# -- memory and time -------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(SHAPES)),
    st.sampled_from(["lora", "qlora", "full"]),
    st.integers(1, 64),
    st.integers(16, 4096),
)
def test_memory_grows_with_all_it_depends_on(
    name: str, method: Method, rows: int, length: int
) -> None:
    """More rows, longer rows and a larger rank never take less; more shards never hold more."""
    model = SHAPES[name]
    here = training_memory(model, method, "cuda", rows=rows, length=length)
    assert here.total == sum(msgspec.to_builtins(here).values())
    more = training_memory(model, method, "cuda", rows=rows + 1, length=length)
    longer = training_memory(model, method, "cuda", rows=rows, length=length + 1)
    wider = training_memory(model, method, "cuda", rows=rows, length=length, rank=64)
    split = training_memory(model, method, "cuda", rows=rows, length=length, shards=4)
    assert min(more.total, longer.total, wider.total) >= here.total
    held = [one.weights + one.gradients + one.optimizer for one in (split, here)]
    assert held[0] <= held[1]


def test_full_fine_tuning_takes_sixteen_bytes_a_parameter() -> None:
    """Weights, gradients and Adam's moments of an 8B model, in float32, and autocast's copies."""
    memory = training_memory(SHAPES["Llama-3.1-8B"], "full", "cuda", rows=1, length=16)
    states = memory.weights + memory.gradients + memory.optimizer
    assert states == pytest.approx(18 * 8_030_261_248, rel=0.001)


def test_recomputing_saves_activations() -> None:
    """Recomputed, a model keeps one layer's activations and the states between layers."""
    model = SHAPES["SmolLM2-360M"]
    kept = training_memory(model, "lora", "cpu", rows=8, length=512, recompute=False)
    less = training_memory(model, "lora", "cpu", rows=8, length=512, recompute=True)
    assert less.activations < kept.activations / 4


def test_the_processor_is_timed_and_time_grows_with_tokens() -> None:
    """Twice the batches take twice the time, a full fine-tune more than an adapter."""
    model = SHAPES["SmolLM2-135M"]
    speed = processor_speed(model, 64, seconds=0.02)
    assert speed.flops > 1e8
    assert speed.peak is None
    once = training_seconds(model, "lora", [(4, 128)] * 8, speed, recompute=False)
    twice = training_seconds(model, "lora", [(4, 128)] * 16, speed, recompute=False)
    assert twice == pytest.approx(2 * once)
    assert training_seconds(model, "full", [(4, 128)] * 8, speed, recompute=False) > once
    assert training_seconds(model, "lora", [(4, 128)] * 8, speed, recompute=True) > once


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10G", 70),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA RTX 6000 Ada Generation", 182),
        ("Tesla T4", 8.1),
        ("NVIDIA H200", 989),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_gpus_are_known_by_their_drivers_names(name: str, tflops: float | None) -> None:
    """The longest description that fits a name is taken; an unknown name has no figures."""
    found = known_gpu(name)
    assert (found.flops / 1e12 if found else None) == tflops


def test_a_gpu_without_bfloat16_trains_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its base and activations take twice the memory."""
    card = SimpleNamespace(total_memory=16 * GIB, name="Tesla T4")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: card)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: False)
    room = find_room("cuda", 1)
    assert not room.bf16
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    assert find_room("cuda", 1) == msgspec.structs.replace(room, bf16=True)
    model = SHAPES["SmolLM2-360M"]
    old, new = (
        foresee(model, job(micro=1), msgspec.structs.replace(room, bf16=has)).memory
        for has in (False, True)
    )
    adapter = 4 * model.adapter(16)
    assert old.weights - adapter == 2 * (new.weights - adapter)
    assert old.activations == pytest.approx(2 * new.activations, abs=1)


# -- the plan --------------------------------------------------------------------------------------


def test_the_plan_adds_up() -> None:
    """Steps, tokens, padding, hours, dollars and kWh follow from the records and the GPU."""
    plan = foresee(SHAPES["Llama-3.1-8B"], job(), H100, hour_price=from_dollars(3))
    assert plan.fits
    assert not plan.instead
    assert (plan.steps, plan.examples, plan.batch_size) == (8, 256, 32)
    assert plan.micro_batch_size * plan.accumulation == 32
    assert plan.tokens == 128 * (512 + 1024)
    assert plan.padded_tokens == sum(
        batch.positions for batch in micro_batches(job().lengths, plan.micro_batch_size)
    )
    assert plan.need == plan.memory.total
    assert plan.seconds is not None
    assert plan.cost == pytest.approx(from_dollars(3) * plan.seconds / 3600, rel=1e-6)
    assert plan.kwh == pytest.approx(0.7 * 0.85 * plan.seconds / 3600)
    assert plan.trainable / plan.parameters < 0.01


def test_an_unknown_gpu_has_no_hours() -> None:
    """Where nothing is known of a GPU's speed the plan says so, and still counts memory."""
    room = msgspec.structs.replace(H100, name="Some GPU")
    plan = foresee(SHAPES["Llama-3.1-8B"], job(), room, hour_price=1)
    assert (plan.seconds, plan.cost, plan.kwh, plan.speed) == (None, None, None, None)
    assert plan.fits


@given(st.sampled_from(sorted(SHAPES)), st.integers(4, 96), st.integers(32, 4096))
def test_the_chosen_batch_fits_and_divides(name: str, gib: int, length: int) -> None:
    """What is chosen fits unless nothing does, and makes up the batch exactly."""
    model, room = SHAPES[name], msgspec.structs.replace(H100, memory=gib * GIB)
    given_job = job(length=length, count=2)
    micro = choose_micro(model, given_job, room)
    assert 32 % micro == 0
    memory = training_memory(model, "lora", "cuda", rows=micro, length=length).total
    assert memory <= room.usable or micro == 1


def test_a_micro_batch_of_one_length_is_chosen_over_a_larger_one_with_padding() -> None:
    """Where a step has runs of neighbours in length, a micro-batch takes one of them.

    Unless it would be too small to keep the machine busy, or has no padding either way.
    """

    def chosen(room: Room, lengths: list[int], *, packing: bool = False) -> int:
        work = job(count=16)
        work = msgspec.structs.replace(
            work,
            batch_size=16,
            lengths=lengths * 16,
            throughput=msgspec.structs.replace(work.throughput, packing=packing),
        )
        return choose_micro(SHAPES["SmolLM2-135M"], work, room)

    runs = [128] * 4 + [256] * 4 + [384] * 4 + [512] * 4
    processor = msgspec.structs.replace(H100, device="cpu", name="")
    assert chosen(processor, runs) == 4
    assert chosen(processor, [128] * 16) == 16
    assert chosen(H100, runs) == 16
    assert chosen(H100, [length * 8 for length in runs]) == 4
    assert chosen(H100, [length * 2 for length in runs]) == 8
    assert chosen(H100, [length * 2 for length in runs], packing=True) == 16


def test_two_processes_share_the_batch_and_halve_the_time() -> None:
    """Each of two GPUs takes half of every batch; sharding divides weights and states."""
    model = SHAPES["Llama-3.1-8B"]
    alone = foresee(model, job(micro=4), H100)
    two = msgspec.structs.replace(H100, processes=2)
    both = foresee(model, job(micro=4), two)
    assert (alone.accumulation, both.accumulation) == (8, 4)
    assert alone.seconds is not None
    assert both.seconds == pytest.approx(alone.seconds / 2)
    sharded = foresee(model, job("full", micro=4), msgspec.structs.replace(two, sharded=True))
    assert sharded.memory.optimizer == 8 * model.parameters // 2
    assert both.memory.gradients == 2 * alone.memory.gradients  # they are put together in buckets


def recomputed(
    method: Method, gib: int, name: str = "Mistral-7B-v0.3", **job_settings: Any
) -> bool:
    room = msgspec.structs.replace(H100, memory=gib * GIB)
    work = msgspec.structs.replace(job(method, length=2048), **job_settings)
    return foresee(SHAPES[name], work, room).recompute


def test_activations_are_kept_where_there_is_room() -> None:
    """On a GPU with room for them a large model's are not worked out again; elsewhere they are."""
    assert not recomputed("lora", 80)
    assert recomputed("lora", 24)
    assert recomputed("full", 139)
    assert not recomputed("full", 139, optimizer="adamw_8bit")
    assert not recomputed("lora", 24, recompute=False)
    assert recomputed("lora", 80, recompute=True)
    assert not recomputed("lora", 8, "SmolLM2-135M")
    cpu = Room(device="cpu", memory=512 * GIB)
    work = job("lora", length=64, count=2)
    assert foresee(SHAPES["Mistral-7B-v0.3"], work, cpu, calibration=0.01).recompute


def test_moments_in_8_bits_are_a_quarter() -> None:
    """Only the optimizer's part shrinks, and of that the embedding's stays."""
    model = SHAPES["Llama-3.1-8B"]
    plain, small = (
        training_memory(model, "full", "cuda", rows=1, length=512, optimizer=one)
        for one in ("adamw", "adamw_8bit")
    )
    embedding = model.hidden * model.vocabulary
    assert small.optimizer - 8 * embedding < (plain.optimizer - 8 * embedding) * 0.27
    assert plain.total - small.total == plain.optimizer - small.optimizer


def test_keeping_what_does_not_fit_says_what_would() -> None:
    """Where `recompute: false` is asked for and too much, setting it to true is named."""
    room = msgspec.structs.replace(H100, memory=40 * GIB)
    work = msgspec.structs.replace(job("lora", length=2048, micro=4), recompute=False)
    plan = foresee(SHAPES["Llama-3.1-8B"], work, room)
    assert not plan.fits
    assert "--set student.recompute=true fits, and is slower" in plan.instead


# -- what does not fit -----------------------------------------------------------------------------


def planned(name: str, method: Method, gib: int, **options: int) -> Outlook:
    room = msgspec.structs.replace(H100, memory=gib * GIB)
    return foresee(SHAPES[name], job(method, **options), room)


def fits(room_gib: int, name: str, method: Method, length: int, shards: int = 1) -> bool:
    memory = training_memory(SHAPES[name], method, "cuda", rows=1, length=length, shards=shards)
    return memory.total <= 0.92 * room_gib * GIB


def test_a_gpu_too_small_names_what_would_fit() -> None:
    """8B on 16 GiB: QLoRA, more GPUs, and a smaller base are named, and each of them does fit."""
    plan = planned("Llama-3.1-8B", "lora", 16)
    assert not plan.fits
    text = "; ".join(plan.instead)
    assert "student.method=qlora" in text
    assert fits(16, "Llama-3.1-8B", "qlora", 1024)
    assert "2 such GPUs" in text
    assert fits(16, "Llama-3.1-8B", "lora", 1024, shards=2)
    assert "Llama-3.2-3B" in text
    assert fits(16, "Llama-3.2-3B", "lora", 1024)
    with pytest.raises(UserError, match=r"needs .* GiB to train.*has 16\.0; .*qlora") as error:
        refuse(plan, "meta-llama/Llama-3.1-8B")
    assert "\n" not in str(error.value)


def test_a_batch_or_length_too_large_names_the_largest_that_fits() -> None:
    """Where only the batch is too large, the largest micro-batch that fits is named."""
    plan = planned("Llama-3.1-8B", "lora", 24, micro=32, length=2048)
    assert any("student.micro_batch_size=" in one for one in plan.instead)
    long = planned("Llama-3.1-8B", "lora", 20, micro=1, length=65_536)
    assert any("student.max_length=" in one for one in long.instead)


def test_suggestions_are_counted_with_the_attention_that_trains() -> None:
    """Where scores are stored, over packed rows as one, what is suggested does fit."""
    model = msgspec.structs.replace(SHAPES["Llama-3.1-8B"], stored_scores=True)
    packed = Throughput(chosen="eager", packing=True)
    work = msgspec.structs.replace(job(micro=32, length=1024), throughput=packed)
    for gib in (24, 40, 80):
        room = msgspec.structs.replace(H100, memory=gib * GIB)
        said = "; ".join(foresee(model, work, room).instead)
        assert "micro_batch_size" in said
        for size in re.findall(r"micro_batch_size=(\d+) fits", said):
            smaller = msgspec.structs.replace(work, micro_batch_size=int(size))
            assert foresee(model, smaller, room).fits, said
        for name in re.findall(r"such as (\S+)", said):
            base = msgspec.structs.replace(SHAPES[name], stored_scores=True)
            single = msgspec.structs.replace(work, micro_batch_size=1)
            assert foresee(base, single, room).fits, said


def test_what_fits_is_not_refused() -> None:
    """A plan within the memory there is passes, and so does one that may fit after all."""
    refuse(planned("Llama-3.1-8B", "lora", 80), "it")
    tight = planned("Llama-3.1-8B", "lora", 80)
    refuse(msgspec.structs.replace(tight, need=int(tight.have * 1.05)), "it")


# -- power -----------------------------------------------------------------------------------------


def test_the_processors_counters_are_read(tmp_path: Path) -> None:
    """kWh are the difference of RAPL's counters; where there are none, nothing is claimed."""
    counter = tmp_path / "intel-rapl:0" / "energy_uj"
    counter.parent.mkdir()
    counter.write_text("1000000\n")
    with Meter(gpus=False, rapl=tmp_path) as meter:
        counter.write_text(str(1_000_000 + 7_200_000_000))
        assert meter.kwh == pytest.approx(0.002)
    with Meter(gpus=False, rapl=tmp_path / "none") as none:
        pass
    assert none.kwh is None
    counter.write_text("5\n")
    with Meter(gpus=False, rapl=tmp_path) as wrapped:
        counter.write_text("1\n")
        assert wrapped.kwh is None


def test_the_gpus_draw_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nvidia-smi says of the GPUs that train is added up; without it nothing is claimed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with Meter(gpus=True) as none:
        pass
    assert none.kwh is None
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    tool.write_text('#!/bin/sh\n[ "$3 $4" = "-i 4,5" ] && echo 400.0 && echo 600.0\n')
    tool.chmod(0o755)
    with Meter(gpus=True) as meter:
        pass
    assert meter.kwh is not None
    assert 0 < meter.kwh < 1e-3
    assert used_gpus({"LOCAL_WORLD_SIZE": "3"}) == "0,1,2"
    assert used_gpus({}) == "0"


def test_a_speed_says_where_it_is_from() -> None:
    """A plan's speed is either measured or an assumption, and says which."""
    plan = foresee(SHAPES["Llama-3.1-8B"], job(), H100)
    assert plan.speed is not None
    assert plan.speed.source == "assumed share of the GPU's peak"
    cpu = foresee(SHAPES["SmolLM2-135M"], job(), Room(device="cpu", memory=64 * GIB))
    assert isinstance(cpu.speed, Speed)
    assert cpu.speed.source == "measured on this processor"
    assert cpu.kwh is None
