"""Records as token ids."""

from __future__ import annotations

from typing import Any

import pytest

from selfinstruct.core.errors import RecipeError, UserError
from selfinstruct.steps.training.format import StudentFormat
from selfinstruct.steps.training.rendering import alpaca_prompts
from tests.tiny_student import CHATML, make_tokenizer, rows

ROW = {"id": "a", "instruction": "Add them", "input": "2, 3", "output": "5 it is"}


def form(*, chat: bool = True, system: str = "", template: str = CHATML) -> StudentFormat:
    tokenizer = make_tokenizer(chat=chat)
    if chat:
        tokenizer.chat_template = template
    return StudentFormat(tokenizer, "tiny", system)


def whole(format_: StudentFormat, row: dict[str, Any], limit: int = 200) -> tuple[str, str]:
    """The prompt and the answer of a row, as text."""
    (example,) = format_.examples([row], limit).kept
    decode = format_.tokenizer.decode
    return decode(example.prompt), decode(example.answer)


def test_a_chat_template_writes_the_conversation() -> None:
    """The prompt ends where the student's turn begins; the answer ends with the turn's end."""
    prompt, answer = whole(form(system="Be brief."), ROW)
    assert prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nAdd them\n\n2, 3<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert answer == "5 it is<|im_end|>"


def test_without_a_template_it_is_alpacas_prompt() -> None:
    """Alpaca's two texts, word for word, after the tokenizer's own first token."""
    chosen = form(chat=False)
    prompt, answer = whole(chosen, ROW)
    assert prompt == (
        "<s>Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd them\n\n### Input:\n2, 3\n\n### Response:"
    )
    assert answer == "5 it is</s>"
    prompt, _ = whole(chosen, ROW | {"input": ""})
    assert prompt == (
        "<s>Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nAdd them\n\n### Response:"
    )


def test_prompts_at_inference_are_those_of_training() -> None:
    """The student meets the very tokens it was trained on, also where words could have merged."""
    for chat in (True, False):
        chosen = form(chat=chat)
        found = chosen.examples(rows(), 200).kept
        assert chosen.prompt_ids(rows()) == [example.prompt for example in found]


def test_values_are_never_expanded() -> None:
    """Text of a record that looks like a place in the prompt stays as it is."""
    prompt, _ = whole(form(chat=False), ROW | {"instruction": "Explain {{input}} to me"})
    assert "Explain {{input}} to me" in prompt


def test_the_stop_token_is_learned_although_it_pads() -> None:
    """With no pad token of its own the stop token pads too, and still has its place in answers."""
    chosen = form()
    assert chosen.tokenizer.pad_token_id == chosen.stop_id
    assert all(e.answer[-1] == chosen.stop_id for e in chosen.examples(rows(), 200).kept)


def test_the_turns_end_counts_where_it_is_not_eos() -> None:
    """A template may end turns with another token than the tokenizer's eos: both then stop."""
    tokenizer = make_tokenizer(chat=True, eos="</s>")
    chosen = StudentFormat(tokenizer, "tiny")
    assert tokenizer.convert_ids_to_tokens(chosen.stop_ids) == ["<|im_end|>", "</s>"]


def test_a_template_that_ends_no_turn_gets_eos() -> None:
    """A template without any token after the answer leaves it to eos."""
    plain = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    plain += "{% if add_generation_prompt %}assistant: {% endif %}"
    prompt, answer = whole(form(template=plain), ROW)
    assert prompt == "user: Add them\n\n2, 3\nassistant: "
    assert answer.endswith("<|im_end|>")
    assert answer.startswith("5 it is")


def test_a_template_that_rewrites_finished_turns() -> None:
    """Where the open turn is no prefix of the finished one, the answer alone follows the prompt."""
    thinking = CHATML.removesuffix("{% endif %}") + "<think>\n{% endif %}"
    prompt, answer = whole(form(template=thinking), ROW)
    assert prompt.endswith("assistant\n<think>\n")
    assert answer == "5 it is<|im_end|>"


def test_long_records_are_cut_and_named() -> None:
    """A cut answer has no end to learn; a prompt that fills the limit leaves nothing to learn."""
    chosen = form()
    (example,) = chosen.examples([ROW], 200).kept
    room = len(example.prompt) + 2
    found = chosen.examples([ROW], room)
    assert found.truncated == ["a"]
    assert found.kept[0].answer == example.answer[:2]
    found = chosen.examples([ROW, ROW | {"id": "b"}], len(example.prompt))
    assert (found.kept, found.truncated, found.fully_masked) == ([], [], ["a", "b"])


def test_a_tokenizer_without_an_end_is_refused() -> None:
    """Without an end-of-sequence token a student could not learn to stop."""
    with pytest.raises(UserError, match=r"tiny.*end-of-sequence"):
        StudentFormat(make_tokenizer(chat=False, eos=None), "tiny")


def test_a_template_that_refuses_says_so() -> None:
    """A template that refuses a conversation is reported with what it says."""
    strict = "{% if 'them' in messages[0]['content'] %}{{ raise_exception('no them') }}{% endif %}"
    with pytest.raises(UserError, match=r"tiny.*no them.*another base"):
        form(template=strict + CHATML).examples([ROW], 200)


@pytest.mark.parametrize("template", [" ", "{{ messages[0]['content'] }}"])
def test_a_template_that_loses_a_turn_says_so(template: str) -> None:
    """What leaves out question or answer, as an empty file does, is no template to learn by."""
    with pytest.raises(UserError, match="its chat template leaves out the question or the answer"):
        form(template=template)


@pytest.mark.parametrize("says", ["{{ raise_exception('no system') }}", ""])
def test_a_template_without_system_messages_gets_the_text_elsewhere(says: str) -> None:
    """Where a template refuses a system message, or leaves it out, the first question opens with
    its text."""
    strict = CHATML.replace(
        "<|im_start|>{{",
        "{% if message['role'] == 'system' %}" + says + "{% else %}<|im_start|>{{",
        1,
    ).replace("<|im_end|>\n{% endfor", "<|im_end|>\n{% endif %}{% endfor")
    prompt, answer = whole(form(system="Be brief.", template=strict), ROW)
    assert prompt == (
        "<|im_start|>user\nBe brief.\n\nAdd them\n\n2, 3<|im_end|>\n<|im_start|>assistant\n"
    )
    assert answer == "5 it is<|im_end|>"


def test_a_prompt_file_without_both_texts_is_refused(tmp_path: Any) -> None:
    """The file must hold the prompt with an input and the one without."""
    path = tmp_path / "p.txt"
    path.write_text("---\nname: p\nversion: 1\n---\n{{instruction}} {{input}}\n")
    with pytest.raises(RecipeError, match="without input"):
        alpaca_prompts(str(path))
