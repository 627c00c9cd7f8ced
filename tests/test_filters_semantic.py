"""Semantic duplicates: paraphrases of what is there, found in order and measured exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import selfinstruct
from selfinstruct.core.errors import UserError
from selfinstruct.core.sections.filters import FiltersConfig
from selfinstruct.core.types import Candidate, SeedTask, Verdict
from selfinstruct.steps.embedding.build import SentenceModel
from selfinstruct.steps.embedding.minilm import MiniLM
from selfinstruct.steps.embedding.vectors import cosine
from selfinstruct.steps.filters.judge import REASONS, build_filters, rule_files
from selfinstruct.steps.filters.semantic import REASONS as OWN
from selfinstruct.steps.filters.semantic import Semantic
from selfinstruct.steps.privacy import Policy
from tests.tiny_student import make_tokenizer

PAIRS = Path(__file__).resolve().parent.parent / "benchmarks" / "data" / "paraphrases.tsv"


def candidate(instruction: str, given: str = "", name: str = "c") -> Candidate:
    """A candidate whose id is `name`."""
    return Candidate(
        id=name, slot=0, index=0, strategy="", instruction=instruction, input=given, output="x"
    )


def pairs() -> list[tuple[bool, str, str]]:
    """The labelled pairs: whether they mean the same, and both texts."""
    lines = (line.split("\t") for line in PAIRS.read_text("utf-8").splitlines())
    return [(label == "1", one, other) for label, one, other in lines]


def test_a_paraphrase_of_a_seed_is_rejected_and_another_task_is_not() -> None:
    """The verdict names the neighbour and the cosine; shared words alone do not count."""
    filter_ = Semantic(0.8)
    filter_.add(SeedTask(id="s1", instruction="What is the capital of Australia?", output="x"))
    filter_.add(SeedTask(id="s2", instruction="List three rivers", output="x"))
    verdict = filter_.check(candidate("Name Australia's capital city."))
    assert verdict is not None
    assert (verdict.reason, verdict.neighbour) == ("semantic_duplicate", "s1")
    assert verdict.score is not None
    assert 0.8 <= verdict.score < 1
    assert "cosine" in verdict.detail
    assert filter_.check(candidate("Who wrote the anthem of Australia?")) is None
    assert set(OWN) <= set(REASONS)


def test_the_boundary_is_rejected() -> None:
    """At exactly the threshold a candidate is rejected, just above it is kept."""
    texts = ["What is the capital of Australia?", "Name Australia's capital city."]
    one, other = MiniLM().embed(texts)
    exact = cosine(one, other)
    for threshold, rejected in ((exact, True), (float(np.nextafter(exact, 1)), False)):
        filter_ = Semantic(threshold)
        filter_.add(candidate(texts[0], name="a"))
        assert (filter_.check(candidate(texts[1])) is not None) == rejected


def test_the_input_counts() -> None:
    """The same instruction over another input is another task."""
    filter_ = Semantic()
    filter_.add(candidate("Summarize the text.", "The harbour was quiet all winter.", "a"))
    assert filter_.check(candidate("Summarize the text.", "Prices rose by two percent.")) is None
    again = filter_.check(candidate("Summarize the text.", "The harbour was quiet all winter."))
    assert again is not None
    assert again.score == pytest.approx(1)


def test_checking_changes_nothing_and_order_gives_the_same() -> None:
    """Verdicts are those of a filter that was only added to, whatever was checked in between."""
    texts = [text for _, one, other in pairs()[:60] for text in (one, other)]

    def verdicts(checks: int) -> list[Verdict | None]:
        filter_, found = Semantic(0.7), []
        for number, text in enumerate(texts):
            for _ in range(checks):
                filter_.check(candidate("Something else entirely"))
            found.append(filter_.check(candidate(text, name=f"r{number}")))
            if found[-1] is None:
                filter_.add(candidate(text, name=f"r{number}"))
        return found

    assert verdicts(0) == verdicts(1)


def test_neighbours_are_those_of_a_full_comparison() -> None:
    """Of the labelled pairs' texts, the graph finds every nearest neighbour that a scan finds."""
    texts = list(dict.fromkeys(text for _, one, other in pairs() for text in (one, other)))
    filter_, vectors = Semantic(0.6), MiniLM().embed(texts)
    for at, text in enumerate(texts):
        verdict = filter_.check(candidate(text))
        best = max((cosine(vectors[at], vectors[n]) for n in range(at)), default=0.0)
        assert (verdict is not None) == (best >= 0.6)
        if verdict is not None:
            assert verdict.score == best
        filter_.add(candidate(text, name=str(at)))


def test_a_run_that_continues_embeds_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the filter made is in the book, so that adding kept records again runs no model."""
    book: dict[bytes, bytes] = {}

    class Shelf:
        get = staticmethod(book.get)
        put = staticmethod(book.__setitem__)

    texts = ["Name three rivers", "Write a poem on the sea"]
    first = Semantic(0.8, book=Shelf())
    for text in texts:
        assert first.check(candidate(text)) is None
        first.add(candidate(text))
    again = Semantic(0.8, book=Shelf())
    monkeypatch.setattr(MiniLM, "embed", None)
    for text in texts:
        again.add(candidate(text, name=text))
    verdict = again.check(candidate(texts[1]))
    assert verdict is not None
    assert verdict.neighbour == texts[1]


def test_any_text_is_taken() -> None:
    """Nothing but punctuation is near nothing; surrogates, emoji and a megabyte are embedded."""
    filter_ = Semantic()
    for text in ("...", "\ud800 half", "🦊🦊", "word " * 200_000, "\x00", "东京在哪里"):
        filter_.check(candidate(text))
        filter_.add(candidate(text))
    assert filter_.check(candidate("!?!")) is None


def test_it_is_off_by_default_and_last_where_it_is_on() -> None:
    """The recipe switches it on, and its threshold is used."""
    assert "semantic" not in [one.name for one in build_filters(FiltersConfig())]
    on = FiltersConfig.model_validate({"semantic": {"enabled": True, "threshold": 0.99}})
    filters = build_filters(on)
    assert filters[-1].name == "semantic"
    filters[-1].add(candidate("What is the capital of Australia?", name="a"))
    assert filters[-1].check(candidate("Name Australia's capital city.")) is None


def test_the_result_of_filtering_says_how_close_is_too_close() -> None:
    """A rejected row comes with its threshold."""
    asked = ("What is the capital of Australia?", "Name Australia's capital city.")
    rows = [{"instruction": text, "output": f"Canberra {n}"} for n, text in enumerate(asked)]
    found = selfinstruct.filter(rows, semantic={"enabled": True, "threshold": 0.8})
    [row] = found.because("semantic_duplicate")
    assert row.threshold == 0.8
    assert row.score is not None
    assert row.score >= 0.8


def test_verdicts_follow_the_models_files(tmp_path: Path) -> None:
    """What a run's verdicts are kept under changes with the model's files, where it is used."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")

    def said(*, on: bool) -> list[Any]:
        semantic = {"enabled": on, "model": str(tmp_path)}
        return rule_files(FiltersConfig.model_validate({"semantic": semantic}))

    before, off = said(on=True), said(on=False)
    (tmp_path / "model.safetensors").write_bytes(b"others!")
    assert said(on=True) != before
    assert said(on=False) == off


# -- other models ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random encoder in the layout of sentence-transformers."""
    import torch
    from transformers import BertConfig, BertModel

    made = tmp_path_factory.mktemp("encoder")
    tokenizer = make_tokenizer(chat=False)
    tokenizer.pad_token = tokenizer.eos_token
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(made)
    tokenizer.save_pretrained(made)
    (made / "1_Pooling").mkdir()
    return made


def pool(folder: Path, mode: str) -> None:
    """Say how the model pools."""
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({mode: True}))


def test_a_sentence_model_pools_as_its_folder_says(folder: Path) -> None:
    """Mean or first token; another way is refused, naming the recipe's key."""
    texts, found = ["Draw a map.", "A much longer text about a harbour and its ships."], {}
    for mode in ("pooling_mode_mean_tokens", "pooling_mode_cls_token"):
        pool(folder, mode)
        model = SentenceModel(str(folder), Policy(local=True), "filters.semantic.model")
        found[mode] = model.embed(texts)
        assert found[mode].shape == (2, 32)
        assert np.abs(model.embed(texts[:1])[0].astype(int) - found[mode][0]).max() <= 1
    first, second = found.values()
    assert (first != second).any()
    pool(folder, "pooling_mode_max_tokens")
    with pytest.raises(UserError, match=r"filters.semantic.model: .* pools by pooling_mode_max"):
        Semantic(0.8, str(folder))
