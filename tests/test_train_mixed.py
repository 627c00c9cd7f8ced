"""Mixed precision on a processor learns what a training in float32 learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from selfinstruct.steps.training import mixed, runtime
from selfinstruct.steps.training.adapters import add_adapter
from selfinstruct.steps.training.loading import load_model
from tests.test_train_families import PLAN
from tests.tiny_student import make_base

# PEFT reads an attribute of transformers that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(autouse=True)
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with bfloat16, whatever this one is."""
    monkeypatch.setattr(runtime, "has_bfloat16", lambda: True)


def adapted(folder: Path, spread: float, base: str = "float32") -> Any:
    """A tiny model in training whose adapter has an upper half of this spread.

    On a GPU the frozen `base` is in bfloat16.
    """
    import torch

    dtype = getattr(torch, base)
    model = add_adapter(load_model(folder, "tiny", device="cpu", dtype=dtype), PLAN)
    chance = torch.Generator().manual_seed(2)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=spread, generator=chance)
    return model.train()


def prepared(model: Any) -> Any:
    return mixed.mixed_precision(model, "cpu", runtime.training_dtype("cpu"), compiled=False)


def layer_of(model: Any) -> Any:
    return model.base_model.model.model.layers[0].mlp.down_proj


BASES = pytest.mark.parametrize("base", ["float32", "bfloat16"])


@BASES
def test_an_update_smaller_than_the_rounding_is_not_lost(base: str, tmp_path: Path) -> None:
    """Over many outputs the adapter's share is what it should be; PEFT's own sum drops it."""
    import torch

    model = adapted(make_base(tmp_path), 2e-5, base)
    layer = layer_of(model)
    chance = torch.Generator().manual_seed(1)
    layer.base_layer.weight.data.normal_(std=0.2, generator=chance)
    rows = torch.randn(4096, layer.in_features, generator=chance)
    with torch.no_grad():
        exact = layer.lora_B["default"](layer.lora_A["default"](rows)) * layer.scaling["default"]

        def share() -> float:
            with torch.autocast("cpu", torch.bfloat16):
                found = (layer(rows) - layer.base_layer(rows)).float()
            return float((found * exact).sum() / exact.square().sum())

        assert share() < 0.2
        with prepared(model):
            assert share() == pytest.approx(1.0, abs=0.2)


@BASES
def test_gradients_are_those_of_float32_but_for_rounding(base: str, tmp_path: Path) -> None:
    """By the adapter's halves and by what goes in, for each kind of linear layer."""
    import torch

    folder = make_base(tmp_path)
    model, exact = adapted(folder, 0.05, base), adapted(folder, 0.05)
    ids = torch.randint(4, 300, (3, 16), generator=torch.Generator().manual_seed(1))

    def gradients(model: Any) -> dict[str, Any]:
        model(input_ids=ids, labels=ids).loss.backward()
        found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        return found

    expected = gradients(exact)
    with (
        prepared(model),
        torch.autocast("cpu", torch.bfloat16),
    ):
        found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert found[name].dtype is torch.float32
        near = torch.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0)
        assert near > 0.98, name


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    """Outside of training, and afterwards, it computes in float32; the trainer's wrap is gone."""
    import torch

    model = adapted(make_base(tmp_path), 0.05)
    ids = torch.arange(5, 20)[None]
    with torch.no_grad():
        before = model(ids).logits
        with prepared(model):
            assert torch.equal(model(ids).logits, before)
            model._original_forward = model.forward
            model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
            assert not torch.equal(model(ids).logits, before)
            assert torch.equal(model.eval()(ids).logits, before)
        assert torch.equal(model(ids).logits, before)
    assert not {"forward", "_original_forward"} & vars(model).keys()
    assert "forward" not in vars(layer_of(model))


def test_layers_with_more_to_them_are_left_to_peft(tmp_path: Path) -> None:
    """DoRA and dropout are not this sum."""
    import torch

    base = make_base(tmp_path)
    for change in ({"lora_dora": True}, {"lora_dropout": 0.1}):
        plan = msgspec.structs.replace(PLAN, **change)
        model = add_adapter(load_model(base, "tiny", device="cpu", dtype=torch.float32), plan)
        with prepared(model):
            assert "forward" not in vars(layer_of(model))


def test_a_processor_without_bfloat16_computes_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have to imitate it; nothing is changed then."""
    import torch

    assert runtime.training_dtype("cpu") is torch.bfloat16
    monkeypatch.setattr(runtime, "has_bfloat16", lambda: False)
    assert runtime.training_dtype("cpu") is torch.float32
    model = adapted(make_base(tmp_path), 0.05)
    with prepared(model):
        assert "forward" not in vars(layer_of(model))


def test_bfloat16_is_told_by_the_processors_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    """AVX512's or AMX's; any other processor computes in float32."""
    import torch

    monkeypatch.undo()
    for has, expected in (
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx512_f": True}, False),
        ({}, False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has)
        assert runtime.has_bfloat16() is expected


def test_on_a_gpu_only_the_sum_is_changed(tmp_path: Path) -> None:
    """There the model's evaluation is left alone, and what is to be compiled altogether."""
    import torch

    model = adapted(make_base(tmp_path), 0.05, "bfloat16")
    with mixed.mixed_precision(model, "cuda", torch.bfloat16, compiled=False):
        assert "forward" in vars(layer_of(model))
        assert "forward" not in vars(model)
    assert "forward" not in vars(layer_of(model))
    with mixed.mixed_precision(model, "cuda", torch.bfloat16, compiled=True):
        assert "forward" not in vars(layer_of(model))
