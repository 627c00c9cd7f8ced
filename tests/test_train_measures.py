"""Measures of a model on records."""

from __future__ import annotations

import math
from typing import Any

import pytest

from selfinstruct.steps.training import measures
from selfinstruct.steps.training.format import Example, StudentFormat
from selfinstruct.steps.training.loading import load_model, load_tokenizer
from selfinstruct.steps.training.measures import (
    greedy,
    mean_loss,
    mean_rouge_l,
    perplexity,
    spread,
)
from tests.tiny_student import make_base, rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, StudentFormat]:
    """A tiny model and the format of its tokenizer."""
    import torch

    folder = make_base(tmp_path_factory.mktemp("base"))
    model = load_model(folder, "tiny", device="cpu", dtype=torch.float32)
    return model, StudentFormat(load_tokenizer(folder, "tiny"), "tiny")


def one_by_one(model: Any, example: Example) -> tuple[float, int]:
    """An example's negative log-likelihood from the definition, without any padding."""
    import torch

    ids = torch.tensor([example.prompt + example.answer])
    with torch.no_grad():
        chances = model(input_ids=ids).logits.log_softmax(-1)
    at = len(example.prompt)
    picked = [-chances[0, at + n - 1, token].item() for n, token in enumerate(example.answer)]
    return sum(picked), len(picked)


def test_the_loss_is_the_mean_over_answer_tokens(base: tuple[Any, StudentFormat]) -> None:
    """Batches, padding and their sizes change nothing; prompts carry no loss."""
    model, form = base
    examples = form.examples(rows(), 96).kept
    parts = [one_by_one(model, example) for example in examples]
    expected = sum(nll for nll, _ in parts) / sum(tokens for _, tokens in parts)
    seen: list[tuple[int, int]] = []
    for size in (1, 3, 8):
        found = mean_loss(
            model,
            examples,
            pad_id=form.tokenizer.pad_token_id,
            batch_size=size,
            on_batch=lambda done, total: seen.append((done, total)),
        )
        assert found == pytest.approx(expected, rel=1e-5)
    assert seen[-1] == (1, 1)
    assert seen[0] == (1, 8)


def test_few_logits_are_held_at_once(
    base: tuple[Any, StudentFormat], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are shared out among more batches, one at least in each; the loss is the same."""
    model, form = base
    examples = form.examples(rows(), 96).kept
    pad = form.tokenizer.pad_token_id
    expected = mean_loss(model, examples, pad_id=pad)
    for answers in (1, 2):
        longest = max(len(example.answer) for example in examples)
        monkeypatch.setattr(measures, "LOGITS", answers * longest * model.config.vocab_size)
        shapes: list[tuple[int, int]] = []
        plain = measures.batch_logits

        def seen(*given: Any, shapes: Any = shapes, plain: Any = plain) -> Any:
            logits, labels = plain(*given)
            shapes.append(tuple(labels.shape))
            return logits, labels

        with monkeypatch.context() as patch:
            patch.setattr(measures, "batch_logits", seen)
            assert mean_loss(model, examples, pad_id=pad) == pytest.approx(expected, rel=1e-5)
        assert len(shapes) > 1
        assert sum(rows for rows, _ in shapes) == len(examples)
        assert all(rows * width <= answers * longest for rows, width in shapes)


def test_the_loss_of_a_model_that_knows_no_extras(base: tuple[Any, StudentFormat]) -> None:
    """A model whose forward cannot skip logits or take positions is measured all the same."""
    model, form = base
    examples = form.examples(rows(), 96).kept

    class Plain:
        """The model behind a narrower forward."""

        parameters = model.parameters

        def forward(self, input_ids: Any, attention_mask: Any, use_cache: bool) -> Any:
            places = (attention_mask.cumsum(-1) - 1).clamp(min=0)
            return model(input_ids=input_ids, attention_mask=attention_mask, position_ids=places)

        __call__ = forward

    pad = form.tokenizer.pad_token_id
    assert mean_loss(Plain(), examples, pad_id=pad) == pytest.approx(
        mean_loss(model, examples, pad_id=pad), rel=1e-5
    )


def test_greedy_answers_do_not_depend_on_the_batch(base: tuple[Any, StudentFormat]) -> None:
    """Prompts of any length side by side get the tokens each gets alone, up to the first stop."""
    model, form = base
    prompts = form.prompt_ids(rows()[:4])
    options = {"max_new_tokens": 8, "pad_id": form.tokenizer.pad_token_id}
    together = greedy(model, prompts, stop_ids=form.stop_ids, **options)
    alone = [greedy(model, [prompt], stop_ids=form.stop_ids, **options)[0] for prompt in prompts]
    assert together == alone
    stop = together[0][3]
    cut = greedy(model, prompts[:1], stop_ids=[stop], **options)[0]
    assert cut == together[0][: together[0].index(stop)]
    assert greedy(model, [], stop_ids=[1], **options) == []


def test_rouge_l_is_rouge_scores() -> None:
    """The same F1 as rouge_score's on text of any punctuation and case; none without samples."""
    from rouge_score.rouge_scorer import RougeScorer

    pairs = [
        ("The cat sat on the mat.", "the cat lay on a mat"),
        ("It's 3.5 km", "its 3 5 km"),
        ("Five", ""),
        ("Same words here", "Same words here"),
    ]
    scorer = RougeScorer(["rougeL"])
    expected = [scorer.score(*pair)["rougeL"].fmeasure for pair in pairs]
    for (reference, text), score in zip(pairs, expected, strict=True):
        assert mean_rouge_l([reference], [text]) == score
    found = mean_rouge_l([one for one, _ in pairs], [other for _, other in pairs])
    assert found == pytest.approx(sum(expected) / len(expected))
    assert mean_rouge_l([], []) is None


def test_perplexity_and_spread() -> None:
    """exp of the loss, finite at any loss; samples are spread evenly and never twice the same."""
    assert perplexity(2.0) == pytest.approx(math.e**2)
    assert math.isfinite(perplexity(10_000.0))
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 8) == [0, 1, 2]
    assert spread(5, 0) == []
