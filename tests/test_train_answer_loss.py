"""The loss that is computed on answers alone is the plain one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfinstruct.steps.planning.model import has_plain_head
from selfinstruct.steps.training import answer_loss
from selfinstruct.steps.training.adapters import add_adapter
from selfinstruct.steps.training.answer_loss import add_answer_head
from selfinstruct.steps.training.loading import load_model
from tests.tiny_student import make_base

# PEFT reads an attribute of transformers that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
IGNORED = -100


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def model_of(base: Path) -> Any:
    import torch

    return load_model(base, "tiny", device="cpu", dtype=torch.float32).train()


def batch() -> dict[str, Any]:
    """Three rows padded on the right; the first half of each is prompt."""
    import torch

    ids = torch.randint(4, 300, (3, 24), generator=torch.Generator().manual_seed(1))
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[:, :12] = IGNORED
    for row, length in ((1, 20), (2, 15)):
        labels[row, length:], mask[row, length:] = IGNORED, 0
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def gradients(model: Any) -> dict[str, Any]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("tile", [5, 256])
def test_loss_and_gradients_are_those_of_the_plain_computation(
    base: Path, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All weights, embeddings and head included; with the mask left out; in tiles of any size."""
    import torch

    monkeypatch.setattr(answer_loss, "TILE", tile)
    model, inputs = model_of(base), batch()
    learned = int((inputs["labels"] != IGNORED).sum())
    plain = model(**inputs).loss
    plain.backward()
    expected = gradients(model)
    assert add_answer_head(model)
    del inputs["attention_mask"]
    loss = model(**inputs, answer_loss=True) / learned
    loss.backward()
    assert torch.allclose(loss, plain, atol=1e-6)
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-6, rtol=1e-4), name


def test_a_model_that_bounds_its_logits_keeps_its_own_loss() -> None:
    """RecurrentGemma names its bound as no other family does."""
    from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

    config = RecurrentGemmaConfig(
        num_hidden_layers=1, vocab_size=64, hidden_size=32, intermediate_size=48,
        num_attention_heads=2, lru_width=32, attention_window_size=16,
    )  # fmt: skip
    assert not has_plain_head(RecurrentGemmaForCausalLM(config))


def test_logits_that_no_setting_tells_of_are_found_by_trying(base: Path) -> None:
    """A model whose forward does more to its logits keeps its own loss, and its mode."""
    model = model_of(base)
    assert has_plain_head(model)
    own = model.forward

    def scaled(*args: Any, **kwargs: Any) -> Any:
        found = own(*args, **kwargs)
        found.logits = found.logits * 0.9
        return found

    model.forward = scaled
    assert not add_answer_head(model)
    assert model.training
    assert model.forward is scaled


def test_pieces_of_a_batch_add_up_to_the_whole(base: Path) -> None:
    """Micro-batches with unlike numbers of answer tokens sum to the gradient of one batch."""
    import torch

    model, inputs = model_of(base), batch()
    add_answer_head(model)
    model(**inputs, answer_loss=True).backward()
    whole = gradients(model)
    for at in range(3):
        piece = {name: value[at : at + 1] for name, value in inputs.items()}
        model(**piece, answer_loss=True).backward()
    for name, gradient in gradients(model).items():
        assert torch.allclose(whole[name], gradient, atol=1e-5, rtol=1e-4), name


def test_an_adapter_learns_through_it(base: Path) -> None:
    """Around a frozen model, only the adapter's weights get a gradient, and the same one."""
    import torch

    from tests.test_train_families import PLAN

    model, inputs = add_adapter(model_of(base), PLAN), batch()
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # zero at first, which would leave lora_A without a gradient
            weight.data.normal_(generator=torch.Generator().manual_seed(2))
    model(**inputs).loss.backward()
    expected = gradients(model)
    assert add_answer_head(model)
    (model(**inputs, answer_loss=True) / int((inputs["labels"] != IGNORED).sum())).backward()
    found = gradients(model)
    assert found
    assert all("lora" in name for name in found)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-5, rtol=1e-3), name


def test_a_batch_without_answers_has_no_loss_and_a_gradient_of_zero(base: Path) -> None:
    """A micro-batch may hold nothing to learn; the step it is part of goes on."""
    model, inputs = model_of(base), batch()
    inputs["labels"][:] = IGNORED
    add_answer_head(model)
    loss = model(**inputs, answer_loss=True)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(not gradient.any() for gradient in gradients(model).values())


def test_a_model_that_scales_its_logits_is_left_as_it_is() -> None:
    """Gemma 2 caps its logits; the plain head would give another loss."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
    )
    model = Gemma2ForCausalLM(config)
    assert not add_answer_head(model)
    assert "forward" not in vars(model)


def test_other_calls_are_the_models_own(base: Path) -> None:
    """Without the keyword, logits and generation are as before."""
    import torch

    model, inputs = model_of(base).eval(), batch()
    with torch.no_grad():
        before = model(**inputs).logits
        add_answer_head(model)
        assert torch.equal(model(**inputs).logits, before)
        out = model.generate(inputs["input_ids"][:1, :8], max_new_tokens=3, do_sample=False)
    assert out.shape[1] > 8


@pytest.mark.usefixtures("float32_processor")
def test_a_training_takes_the_same_steps_with_it(base: Path, tmp_path: Path) -> None:
    """`sparse_head` changes the work and not the losses, padding and accumulation included."""
    import msgspec

    from selfinstruct.steps.training.format import Example
    from selfinstruct.steps.training.loading import load_tokenizer
    from selfinstruct.steps.training.trainer import fit
    from tests.test_train_families import PLAN

    examples = [
        Example(id=str(n), prompt=list(range(5, 9 + n)), answer=list(range(40, 44 + 2 * n)))
        for n in range(6)
    ]
    losses = []
    for sparse in (False, True):
        plan = msgspec.structs.replace(
            PLAN, sparse_head=sparse, batch_size=4, epochs=2, learning_rate=1e-3
        )
        model = add_adapter(model_of(base), plan)
        where = tmp_path / str(sparse)
        _, done = fit(model, load_tokenizer(base, "tiny"), examples, plan, where, "x", lambda: 0.0)
        losses.append([step.loss for step in done.losses])
    assert losses[0]
    assert losses[1] == pytest.approx(losses[0], abs=2e-4)
