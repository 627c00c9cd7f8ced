"""A finished student as a GGUF file: what is written, and what the gate refuses."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from selfinstruct.cli.export_student import PRECISIONS
from selfinstruct.cli.main import cli
from selfinstruct.core.errors import FolderError, SelfInstructError, UserError
from selfinstruct.core.types import Message
from selfinstruct.engine.folder import RunFolder
from selfinstruct.stages.export_student import export_student
from selfinstruct.stages.train import train_student
from selfinstruct.steps.tables import write_parquet
from selfinstruct.steps.training import gguf_quants, parity
from selfinstruct.steps.training.format import StudentFormat
from selfinstruct.steps.training.gguf_file import reordered, rope_factors, write_gguf
from selfinstruct.steps.training.loading import load_tokenizer
from selfinstruct.steps.training.ollama import find_pieces, modelfile
from selfinstruct.steps.training.parity import check_gguf
from selfinstruct.steps.training.rendering import Rendering
from tests.tiny_student import CHATML, make_base, make_run, make_tokenizer, rows

pytest.importorskip("xllamacpp")
gguf = pytest.importorskip("gguf")

PROMPTS = rows()[:3]
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}
GROUPED: dict[str, Any] = {"num_key_value_heads": 2, "tie_word_embeddings": False}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "mistral": GROUPED | {"head_dim": 32},
    "qwen2": GROUPED | {"tie_word_embeddings": True},
    "qwen3": GROUPED | {"head_dim": 16},
    "gpt_neox": {"rope_parameters": {"partial_rotary_factor": 0.25, "rope_theta": 10000.0}},
}


def make_model(folder: Path, kind: str, tokenizer: Any = None, **settings: Any) -> Path:
    """A random model of a family, biases and norms included, with its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tokenizer or make_tokenizer(chat=True)
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer) + 3, **(SIZES | settings))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for name, weight in model.named_parameters():
            if "bias" in name or "norm" in name:
                torch.nn.init.normal_(weight, 1.0 if "norm" in name else 0.0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def form_of(model: Path, system: str = "") -> StudentFormat:
    return StudentFormat(load_tokenizer(model, "tiny"), "tiny", system)


def write(model: Path, path: Path, precision: str = "f32") -> Path:
    stop = form_of(model).stop_id
    write_gguf(model, path, precision=precision, name="tiny", stop_id=stop)
    return path


def sentencepiece() -> Any:
    """A tokenizer as Llama 2's: BPE over pieces with bytes to fall back on, and no template."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>"], show_progress=False)
    texts = [f"{row['instruction']} {row['input']} {row['output']}" for row in rows()]
    trained.train_from_iterator([" ".join(texts)], trainer)
    import json

    learned = json.loads(trained.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [piece for piece in learned["vocab"] if piece != "<unk>"]
    whole = Tokenizer(
        models.BPE(
            vocab={piece: number for number, piece in enumerate(pieces)},
            merges=[tuple(pair) for pair in learned["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    whole.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    whole.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    whole.add_special_tokens(["<unk>", "<s>", "</s>"])
    whole.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=whole, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


# -- the file says what the model says ------------------------------------------------------------


@pytest.mark.parametrize("kind", FAMILIES)
async def test_every_family_says_the_same(kind: str, tmp_path: Path) -> None:
    """llama.cpp computes each family's weights, biases and norms as transformers does."""
    model = make_model(tmp_path / "model", kind, **FAMILIES[kind])
    path = write(model, tmp_path / "tiny.gguf")
    parity = await check_gguf(path, model, form_of(model), PROMPTS, "f32")
    assert parity.agreement == 1.0
    assert parity.difference < 0.01


async def test_llama_3_stretches_its_positions_alike(tmp_path: Path) -> None:
    """The factors on the rotary frequencies arrive; prompts are longer than where they begin."""
    model = make_model(tmp_path / "model", "llama", **GROUPED, rope_parameters=LLAMA3)
    long = [{"id": "long", "instruction": "Say it again. " * 12, "input": "", "output": "It."}]
    path = write(model, tmp_path / "tiny.gguf")
    parity = await check_gguf(path, model, form_of(model), long, "f32")
    assert parity.difference < 0.01


def test_llama_3_factors_are_those_of_transformers() -> None:
    """Frequency by frequency they are what transformers divides by."""
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(**(SIZES | GROUPED), rope_parameters=LLAMA3)
    plain = 1 / 10000.0 ** (torch.arange(0, 16, 2) / 16)
    theirs, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    assert torch.allclose(plain / rope_factors(config), theirs, rtol=1e-5)


async def test_sentencepiece_tokens_are_the_same(tmp_path: Path) -> None:
    """Scores rebuilt from the merges make llama.cpp cut text as the tokenizer does, bytes too."""
    model = make_model(tmp_path / "model", "llama", sentencepiece(), **GROUPED)
    strange = {
        "id": "s",
        "instruction": "Naïve  harbours — 東京?",
        "input": "\t1 22",
        "output": ".",
    }
    path = write(model, tmp_path / "tiny.gguf")
    parity = await check_gguf(path, model, form_of(model), [*PROMPTS, strange], "f32")
    assert parity.agreement == 1.0


async def test_quantized_files_stay_near(tmp_path: Path) -> None:
    """Q8_0 passes its own gate, and is smaller than half of float32."""
    model = make_model(tmp_path / "model", "llama", **GROUPED)
    path = write(model, tmp_path / "tiny.gguf", "q8_0")
    await check_gguf(path, model, form_of(model), PROMPTS, "q8_0")
    assert path.stat().st_size < write(model, tmp_path / "full.gguf").stat().st_size / 2


# -- what is wrong is refused ---------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["f32", "q4_k_m"])
async def test_rows_in_the_wrong_order_are_refused(precision: str, tmp_path: Path) -> None:
    """Queries and keys as the safetensors have them load and answer, but not as the student."""
    import torch
    from transformers import AutoModelForCausalLM

    model = make_model(tmp_path / "model", "llama", **GROUPED)
    wrong = AutoModelForCausalLM.from_pretrained(model)
    for name, weight in wrong.named_parameters():
        if ".q_proj." in name or ".k_proj." in name:
            # What the export's reordering turns back into the rows as they were.
            places = torch.arange(len(weight), dtype=torch.float32)
            moved = reordered(name, places.unsqueeze(-1), wrong.config).squeeze(-1).long()
            weight.data = weight.data[moved.argsort()]
    shutil.copytree(model, tmp_path / "wrong")
    wrong.save_pretrained(tmp_path / "wrong")
    path = write(tmp_path / "wrong", tmp_path / "tiny.gguf", precision)
    with pytest.raises(SelfInstructError, match="agrees with student/merged on"):
        await check_gguf(path, model, form_of(model), PROMPTS, precision)


async def test_too_few_bits_name_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A precision that loses too much of a student says which to take; the export is not wrong."""
    model = make_model(tmp_path / "model", "llama", **GROUPED)
    path = write(model, tmp_path / "tiny.gguf", "q8_0")
    monkeypatch.setitem(parity.TOLERANCES, "q8_0", parity.Tolerance(2.0, 0.0))
    with pytest.raises(UserError, match="the student bears no q8_0; take --gguf f16"):
        await check_gguf(path, model, form_of(model), PROMPTS, "q8_0")


async def test_another_template_is_refused(tmp_path: Path) -> None:
    """A chat template that writes another prompt is named as such."""
    model = make_model(tmp_path / "model", "llama", **GROUPED)
    shutil.copytree(model, tmp_path / "wrong")
    changed = CHATML.replace("message['content']", "message['content'] | trim + '!'")
    (tmp_path / "wrong" / "chat_template.jinja").write_text(changed, "utf-8")
    path = write(tmp_path / "wrong", tmp_path / "tiny.gguf")
    with pytest.raises(SelfInstructError, match="its chat template writes record r0 as"):
        await check_gguf(path, model, form_of(model), PROMPTS, "f32")


async def test_other_tokens_are_refused(tmp_path: Path) -> None:
    """A file whose merges are not the tokenizer's is refused at the first token that differs."""
    import json

    model = make_model(tmp_path / "model", "llama", **GROUPED)
    shutil.copytree(model, tmp_path / "wrong")
    path = tmp_path / "wrong" / "tokenizer.json"
    whole = json.loads(path.read_text("utf-8"))
    whole["model"]["merges"] = whole["model"]["merges"][:5]
    path.write_text(json.dumps(whole), "utf-8")
    file = write(tmp_path / "wrong", tmp_path / "tiny.gguf")
    with pytest.raises(SelfInstructError, match="its tokenizer differs on record r0 from token"):
        await check_gguf(file, model, form_of(model), PROMPTS, "f32")


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    """One line says which architectures are written, and what converts others."""
    model = make_model(tmp_path / "model", "gptj", n_embd=64, n_layer=1, n_head=4, rotary_dim=8)
    with pytest.raises(UserError, match=r"architecture gptj .* \(llama, .*convert_hf_to_gguf"):
        write(model, tmp_path / "tiny.gguf")


def test_an_unknown_tokenizer_is_named(tmp_path: Path) -> None:
    """A rule that llama.cpp has no name for is refused, not guessed."""
    from tokenizers import pre_tokenizers

    tokenizer = make_tokenizer(chat=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    model = make_model(tmp_path / "model", "llama", tokenizer, **GROUPED)
    with pytest.raises(UserError, match="cuts text into words with Whitespace"):
        write(model, tmp_path / "tiny.gguf")


# -- precisions -----------------------------------------------------------------------------------


def test_the_command_offers_what_there_is() -> None:
    """The command's list of precisions, which imports nothing, is the module's."""
    assert PRECISIONS == gguf_quants.PRECISIONS


def test_ggml_packs_as_the_package_gguf_does() -> None:
    """Q8_0 by ggml is bit for bit that of gguf's own numpy code."""
    weight = np.random.default_rng(0).normal(size=(4, 96)).astype(np.float32)
    kind = gguf.GGMLQuantizationType.Q8_0
    assert (gguf_quants.pack(weight, kind) == gguf.quants.quantize(weight, kind)).all()


@pytest.mark.parametrize(("precision", "error"), [("Q4_K", 0.08), ("Q6_K", 0.02)])
def test_k_types_unpack_to_nearly_the_same(precision: str, error: float) -> None:
    """What ggml packs, gguf unpacks to weights that differ by a small share of their spread."""
    weight = np.random.default_rng(0).normal(size=(8, 512)).astype(np.float32)
    kind = gguf.GGMLQuantizationType[precision]
    back = gguf.quants.dequantize(gguf_quants.pack(weight, kind), kind)
    assert np.abs(back - weight).mean() < error


def test_mixtures_follow_llama_quantize() -> None:
    """Q4_K_M keeps the tied embeddings and every third value and down projection in Q6_K."""

    def kinds(name: str, columns: int = 512) -> list[str]:
        shape = (512, columns)
        return [
            gguf_quants.weight_type(name.format(n), shape, "q4_k_m", 24, tied=True).name
            for n in range(24)
        ]

    more = [n for n, kind in enumerate(kinds("blk.{}.ffn_down.weight")) if kind == "Q6_K"]
    assert more == [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]
    assert set(kinds("blk.{}.ffn_up.weight")) == {"Q4_K"}
    assert set(kinds("blk.{}.ffn_up.weight", columns=576)) == {"Q5_0"}
    assert set(kinds("token_embd.weight")) == {"Q6_K"}
    assert set(kinds("blk.{}.ffn_up.weight", columns=33)) == {"F16"}


# -- Ollama ---------------------------------------------------------------------------------------

TALKS: list[Sequence[tuple[str, str]]] = [
    [("user", "Hello")],
    [("system", "Be brief"), ("user", "Hello")],
    [("user", "Hello"), ("assistant", "Hi."), ("user", "And?")],
    [("system", "S"), *[("user", "A"), ("assistant", "B")] * 3, ("user", "C")],
]
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('no system role') }}{% endif %}<|im_start|>"
    "{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
DEFAULT_SYSTEM = CHATML.replace(
    "{% for message in messages %}",
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou help.<|im_end|>\n{% endif %}",
)


@pytest.mark.parametrize("template", [CHATML, DEFAULT_SYSTEM, GEMMA, None])
def test_the_pieces_render_conversations(template: str | None) -> None:
    """Put together, they are the chat template's, or Alpaca's, prompt for any conversation."""
    tokenizer = make_tokenizer(chat=template is not None)
    tokenizer.chat_template = template
    rendering = Rendering(tokenizer, "tiny")
    pieces = find_pieces(rendering)
    for talk in TALKS:
        messages = [Message(role, content) for role, content in talk]  # type: ignore[arg-type]
        assert pieces.render(messages) == rendering.render(messages, open_turn=True)


def test_a_template_without_such_pieces_is_refused() -> None:
    """One that numbers its turns cannot be said, and the message says what else there is."""
    tokenizer = make_tokenizer(chat=True)
    tokenizer.chat_template = CHATML.replace("{{ message['role'] }}", "{{ loop.index }}")
    with pytest.raises(UserError, match="export without --ollama"):
        find_pieces(Rendering(tokenizer, "tiny"))


def test_a_modelfile_names_file_template_and_stop() -> None:
    """The first token is left to the runner, which puts it there by the file's metadata."""
    tokenizer = make_tokenizer(chat=True)
    tokenizer.chat_template = "{{ bos_token }}" + CHATML
    form = StudentFormat(tokenizer, "tiny", "Be brief.")
    text = modelfile(form, "tiny.gguf", adds_bos=True)
    assert text.startswith('FROM ./tiny.gguf\nTEMPLATE """{{ if .System }}<|im_start|>system\n')
    assert 'SYSTEM """Be brief."""\nPARAMETER stop "<|im_end|>"\n' in text
    assert "{{ else }}{{ end }}" in text
    assert "{{ else }}<|im_start|>{{ end }}" in modelfile(form, "tiny.gguf", adds_bos=False)


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A trained run, adapter alone."""
    folder = tmp_path_factory.mktemp("run")
    base = make_base(folder / "base")
    made = make_run(folder / "run", base, test=rows()[:4], student={"merge": False, "epochs": 1.0})
    train_student(made)
    return made


def test_a_run_is_exported_by_one_command(run: Any) -> None:
    """The adapter is merged for it; file, figures and Modelfile lie together; again is a no-op."""
    invoke = CliRunner().invoke(cli, ["export-student", str(run.path), "--gguf", "f16", "--ollama"])
    assert invoke.exit_code == 0, invoke.output
    folder = run.student / "gguf"
    assert sorted(path.name for path in folder.iterdir()) == [
        "Modelfile",
        "export.json",
        "tiny-F16.gguf",
    ]
    assert "answer tokens agree" in invoke.output
    before = (folder / "tiny-F16.gguf").stat().st_mtime_ns
    again = CliRunner().invoke(cli, ["export-student", str(run.path), "--gguf", "f16", "--json"])
    assert '"agreement"' in again.output
    assert (folder / "tiny-F16.gguf").stat().st_mtime_ns == before
    assert not (run.student / "merged").exists()


async def test_a_merged_model_that_differs_from_its_adapter_is_refused(
    run: Any, tmp_path: Path
) -> None:
    """Nothing is exported from merged weights that do not answer as base and adapter do."""
    import msgspec

    copy = type(run)(shutil.copytree(run.path, tmp_path / "run"))
    facts: Mapping[str, Any] = copy.read_json(copy.student / "training.json") or {}
    (copy.student / "training.json").write_bytes(
        msgspec.json.encode({**facts, "merged": "student/merged"})
    )
    make_model(copy.student / "merged", "llama", load_tokenizer(run.student / "adapter", "tiny"))
    with pytest.raises(SelfInstructError, match="does not answer as base and adapter do"):
        await export_student(copy, "f32")
    assert not list(copy.path.rglob("tiny-F32*"))


async def test_a_run_without_a_student_is_told_so(tmp_path: Path) -> None:
    """One line names the command that comes before."""
    with pytest.raises(UserError, match="run: selfinstruct train-student"):
        await export_student(make_run(tmp_path / "run", "anything"), "f16")


async def test_what_an_export_lacks_is_named(run: Any, tmp_path: Path) -> None:
    """A student, or the records to compare with, that somebody took away."""
    folder = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    shutil.rmtree(folder.dataset)
    with pytest.raises(FolderError, match="no records here to compare the file with"):
        await export_student(folder, "f16", force=True)
    shutil.rmtree(folder.student / "adapter")
    with pytest.raises(UserError, match="has no finished student"):
        await export_student(folder, "f16")


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="no bitsandbytes")
async def test_a_student_trained_on_4_bits_is_exported(tmp_path: Path) -> None:
    """Its file answers as its merged 16-bit weights do, which are not those it was trained on."""
    base = make_base(tmp_path / "base")
    student = {"method": "qlora", "max_steps": 2}
    run = make_run(tmp_path / "run", base, test=rows()[:4], student=student)
    train_student(run)
    summary = await export_student(run, "f16")
    assert summary.parity.agreement == 1.0


async def test_prompts_that_fill_the_context_are_left_out(run: Any, tmp_path: Path) -> None:
    """The file cannot serve them; it is compared on the others, and refused if there are none."""
    long = {**rows()[0], "id": "long", "input": "word " * 300}
    copy = type(run)(shutil.copytree(run.path, tmp_path / "run"))
    held_out = copy.dataset / "data" / "test-00000-of-00001.parquet"
    write_parquet(held_out, "default", [long, *rows()[:2]])
    assert (await export_student(copy, "f32", force=True)).parity.prompts == 2
    write_parquet(held_out, "default", [long])
    write_parquet(copy.dataset / "data" / "train-00000-of-00001.parquet", "default", [long])
    with pytest.raises(UserError, match="every prompt fills the 256 tokens"):
        await export_student(copy, "f16", force=True)


async def test_conversations_are_compared_with_all_their_turns(run: Any, tmp_path: Path) -> None:
    """What the file is asked is a held-out conversation up to its last answer."""
    turns = ["user", "assistant", "user", "assistant"]
    talk = [{"role": role, "content": f"Word {n}."} for n, role in enumerate(turns)]
    copy = type(run)(shutil.copytree(run.path, tmp_path / "run"))
    held_out = copy.dataset / "data" / "test-00000-of-00001.parquet"
    write_parquet(held_out, "default", [{**rows()[0], "messages": talk}], ["messages"])
    assert (await export_student(copy, "f32", force=True)).parity.prompts == 1
