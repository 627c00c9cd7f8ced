"""Perplexity, IFD and rewards by tiny random models, kept in the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import selfinstruct
from selfinstruct.core.errors import UserError
from selfinstruct.core.types import SeedTask
from selfinstruct.engine.ledger import Ledger
from selfinstruct.engine.score_book import ScoreBook
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.scores.likelihood import Likelihood, ifd
from selfinstruct.steps.scores.reward import Reward
from tests.tiny_student import RECORDS, make_base, make_tokenizer

OFFLINE = Policy(local=True)
TASKS = [
    SeedTask(id=f"r{n}", instruction=asked, input=given, output=told)
    for n, (asked, given, told) in enumerate(RECORDS)
]


@pytest.fixture(scope="module", params=[True, False], ids=["chat", "plain"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random causal model, with a chat template and without."""
    return make_base(tmp_path_factory.mktemp("base"), chat=request.param)


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random sequence classifier with one label."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    folder = tmp_path_factory.mktemp("reward")
    tokenizer = make_tokenizer(chat=True)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_labels=1,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def losses(model: Likelihood, tasks: list[SeedTask], *, alone: bool) -> list[float | None]:
    """The losses in the order of the tasks."""
    found = dict(pair for batch in model.losses(tasks, alone=alone) for pair in batch)
    return [found[at] for at in range(len(tasks))]


def test_losses_are_those_of_each_record_by_itself(base: Path) -> None:
    """Batched by length and padded, they equal a forward pass without padding, token by token."""
    found = Likelihood(str(base), OFFLINE, device="cpu", max_length=200)
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    given, alone = losses(found, TASKS, alone=False), losses(found, TASKS, alone=True)
    first = tokenizer.bos_token_id
    for task, with_prompt, by_itself in zip(TASKS, given, alone, strict=True):
        prompt = found._form.prompt({"instruction": task.instruction, "input": task.input})
        answer = tokenizer(task.output, add_special_tokens=False)["input_ids"]
        before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if tokenizer.chat_template is None:
            before = [first, *before]
        for context, expected in ((before, with_prompt), ([first], by_itself)):
            ids = torch.tensor([context + answer])
            with torch.inference_mode():
                logits = model(ids).logits[0, len(context) - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(answer)).item()
            assert expected == pytest.approx(loss, abs=2e-4)


def test_what_does_not_fit_has_no_score(base: Path) -> None:
    """A prompt that leaves no room gives None, and so does an IFD of it."""
    model = Likelihood(str(base), OFFLINE, device="cpu", max_length=24)
    long = SeedTask(id="long", instruction="river " * 100, output="Yes.")
    assert losses(model, [long], alone=False) == [None]
    assert ifd(None, 1.0) is None
    assert ifd(1.0, 0.0) is None
    assert ifd(3.0, 4.0) == 0.75


def test_scores_become_columns_and_are_worked_out_once(
    base: Path, reward_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IFD and perplexity come from the same losses; a second selection runs no model."""
    source = tmp_path / "data.jsonl"
    source.write_bytes(
        b"".join(
            b'{"instruction": "%s", "input": "%s", "output": "%s"}\n'
            % (a.encode(), g.encode(), t.encode())
            for a, g, t in RECORDS
        )
    )
    settings = {
        "select": {
            "method": "top_k",
            "score": "ifd",
            "count": 4,
            "scores": ["perplexity", "reward"],
            "model": str(base),
            "reward_model": str(reward_model),
            "device": "cpu",
        }
    }
    out = tmp_path / "out"
    first = selfinstruct.select_dataset(source, out, settings)
    assert set(first.scores) == {"ifd", "perplexity", "reward"}
    assert all(spread.missing == 0 for spread in first.scores.values())
    with Ledger.read(out / "run.db") as ledger:
        kinds = dict(ledger.db.execute("SELECT kind, count(*) FROM scores GROUP BY 1"))
        stages = ledger.db.execute("SELECT DISTINCT stage FROM sessions").fetchall()
    assert sorted(kinds.values()) == [8, 8, 8]
    assert stages == [("score",)]
    for name in ("Likelihood.losses", "Reward.rewards"):
        owner, method = name.split(".")
        module = "likelihood" if owner == "Likelihood" else "reward"
        monkeypatch.setattr(f"selfinstruct.steps.scores.{module}.{owner}.{method}", None)
    again = selfinstruct.select_dataset(source, out, settings, overrides=["select.count=5"])
    assert again.selected == 5
    assert again.scores["ifd"].mean == first.scores["ifd"].mean


def test_another_model_in_the_same_folder_scores_anew(tmp_path: Path) -> None:
    """Sizes and settings are the same, weights are not; without the folder nothing is lost."""
    base = make_base(tmp_path / "base", chat=False)
    source, out = tmp_path / "data.jsonl", tmp_path / "out"
    source.write_text(
        "".join(f'{{"instruction": "Say {n} times", "output": "so {n}"}}\n' for n in range(6))
    )
    select = {"method": "top_k", "score": "perplexity", "count": 3, "model": str(base)}
    settings = {"select": {**select, "device": "cpu"}}
    first = selfinstruct.select_dataset(source, out, settings)
    assert selfinstruct.select_dataset(source, out, settings) == first
    weights = base / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor + 0.25 for name, tensor in tensors.items()}, weights, {"format": "pt"})
    again = selfinstruct.select_dataset(source, out, settings)
    assert again.scores["perplexity"].mean != first.scores["perplexity"].mean
    assert again.models != first.models
    base.rename(tmp_path / "moved")
    assert selfinstruct.select_dataset(source, out, settings) == again


def test_rewards_do_not_depend_on_padding(reward_model: Path) -> None:
    """A record's reward is the same alone and in a batch."""
    model = Reward(str(reward_model), OFFLINE, device="cpu", max_length=200)
    together = dict(pair for batch in model.rewards(TASKS) for pair in batch)
    for at, task in enumerate(TASKS):
        alone = next(iter(model.rewards([task])))[0][1]
        assert together[at] == pytest.approx(alone, abs=1e-4)
    assert len({round(value, 3) for value in together.values()}) > 4


def test_a_model_of_the_wrong_kind_is_refused(base: Path, tmp_path: Path) -> None:
    """The error names the recipe's key: a language model is no reward model, a typo no model."""
    with pytest.raises(UserError, match=r"select.reward_model: .* is no reward model: .*score"):
        Reward(str(base), OFFLINE, device="cpu", max_length=200)
    with pytest.raises(UserError, match=r"select.model: nosuch: neither a model folder"):
        Likelihood("nosuch", OFFLINE, device="cpu", max_length=200)


def test_the_book_keeps_what_was_worked_out(tmp_path: Path) -> None:
    """Scores of a text are found again, also by another record of the same text; None is kept."""
    twin = SeedTask(id="twin", instruction=TASKS[0].instruction, output=TASKS[0].output)
    with Ledger(tmp_path / "run.db") as ledger:
        book = ScoreBook(ledger, "k", [*TASKS[:3], twin])
        assert book.missing() == [0, 1, 2]
        book.add([(0, 1.5), (1, None)])
        book.flush()
    with Ledger(tmp_path / "run.db") as ledger:
        book = ScoreBook(ledger, "k", [*TASKS[:3], twin])
        assert book.missing() == [2]
        assert book.values() == [1.5, None, None, 1.5]
        assert ScoreBook(ledger, "other", TASKS).missing() == list(range(len(TASKS)))
