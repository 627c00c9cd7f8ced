"""A GGUF file as a base."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from selfinstruct.core.errors import UserError
from selfinstruct.steps.privacy import Policy
from selfinstruct.steps.teachers.models import cache_folder
from selfinstruct.steps.training.base import find_base
from selfinstruct.steps.training.format import StudentFormat
from selfinstruct.steps.training.gguf_base import convert_gguf, read_source
from selfinstruct.steps.training.loading import load_model, load_tokenizer
from selfinstruct.steps.training.measures import greedy, mean_loss
from tests.tiny_student import make_base


def write_gguf(base: Path, path: Path, *, template: bool = True) -> Path:
    """The tiny Llama in `base` as a GGUF file, written as llama.cpp's own converter does."""
    import gguf
    import torch

    model = load_model(base, "tiny", device="cpu", dtype=torch.float32)
    tokenizer = load_tokenizer(base, "tiny")
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny")
    writer.add_license("mit")
    writer.add_source_repo_url("https://huggingface.co/acme/tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    add_vocabulary(writer, tokenizer, template=template)
    for name, weight in model.state_dict().items():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        kind = next((heads[part] for part in heads if part in name), 0)
        writer.add_tensor(gguf_name(name), permuted(weight.numpy(), kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_vocabulary(writer: Any, tokenizer: Any, *, template: bool) -> None:
    import json

    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = set(tokenizer.added_tokens_decoder)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if number in special else 1 for _, number in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(False)
    if template:
        writer.add_chat_template(tokenizer.chat_template)


def gguf_name(name: str) -> str:
    """The GGUF name of a Llama weight."""
    parts = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers": "blk",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    # The longer name first: one is the end of the other.
    for theirs in sorted(parts, key=len, reverse=True):
        name = name.replace(theirs, parts[theirs])
    return name


def permuted(weight: Any, heads: int) -> Any:
    """Rows in the order that llama.cpp's rotary embedding wants; 0 heads for other weights."""
    if not heads:
        return weight
    rows, columns = weight.shape
    split = weight.reshape(heads, 2, rows // heads // 2, columns)
    return split.swapaxes(1, 2).reshape(rows, columns).copy()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def file(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(base, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_the_converted_model_is_the_one_in_the_file(base: Path, file: Path, tmp_path: Path) -> None:
    """Weights, tokens, template and end-of-turn survive the way through GGUF."""
    import torch

    folder = convert_gguf(file, tmp_path)
    source = read_source(folder)
    assert source is not None
    assert (source.name, source.license, source.file) == ("Tiny", "mit", "tiny.gguf")
    assert source.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    ours, theirs = load_tokenizer(folder, "gguf"), load_tokenizer(base, "tiny")
    text = "Name a colour of the sky<|im_end|>\n<|im_start|>"
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert ours.chat_template == theirs.chat_template
    assert (ours.eos_token, ours.bos_token) == ("<|im_end|>", "<|im_start|>")
    assert ours.model_max_length == 256
    models = [load_model(path, "m", device="cpu", dtype=torch.float32) for path in (folder, base)]
    ids = torch.arange(40).reshape(1, 40)
    with torch.no_grad():
        one, other = (model(ids).logits for model in models)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert "quantization_config" not in (folder / "config.json").read_text()
    assert "local_files_only" not in (folder / "tokenizer_config.json").read_text()


def test_a_file_is_converted_once(file: Path, tmp_path: Path) -> None:
    """The same file, wherever it lies, is found again by its content; another is converted anew."""
    folder = convert_gguf(file, tmp_path)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    copy = tmp_path / "copy.gguf"
    shutil.copy(file, copy)
    assert convert_gguf(copy, tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [folder.name]


def test_a_conversion_that_died_leaves_nothing_to_trust(file: Path, tmp_path: Path) -> None:
    """A folder without its note is not taken for a model, and a failed one is removed."""
    whole = convert_gguf(file, tmp_path / "a")
    torn = tmp_path / "b" / f".{whole.name}.died"
    torn.mkdir(parents=True)
    (torn / "model.safetensors").write_bytes(b"half")
    folder = convert_gguf(file, tmp_path / "b")
    assert load_tokenizer(folder, "gguf").eos_token == "<|im_end|>"
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(file.read_bytes()[:600])
    with pytest.raises(UserError, match=r"broken\.gguf"):
        convert_gguf(broken, tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []


def test_what_is_no_gguf_says_so(tmp_path: Path) -> None:
    """A file of another kind is refused in one line."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"this is no model" * 10)
    with pytest.raises(UserError, match="not a GGUF file") as caught:
        convert_gguf(path, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_a_base_is_a_gguf_file(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`student.base` may name the file: the folder in the cache is what is trained."""
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path))
    base = find_base(str(file), Policy(local=True))
    assert base.folder.parent == tmp_path / "converted"
    assert (base.license, base.hub_id) == ("mit", "acme/tiny")


@pytest.mark.slow
def test_smollm2_from_its_gguf_file() -> None:
    """The real model, converted from Q4_1, speaks English, knows its template, and stops."""
    import torch

    base = find_base("smollm2-135m-instruct", Policy())
    assert base.folder.is_relative_to(cache_folder())
    assert (base.hub_id, base.license) == ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")
    form = StudentFormat(load_tokenizer(base.folder, base.name), base.name)
    assert form.kind == "chat"
    assert form.tokenizer.convert_ids_to_tokens(form.stop_ids) == ["<|im_end|>"]
    model = load_model(base.folder, base.name, device="cpu", dtype=torch.float32)
    row = {
        "id": "a",
        "instruction": "What is the capital of France?",
        "input": "",
        "output": "The capital of France is Paris.",
    }
    pad = form.tokenizer.pad_token_id
    found = form.examples([row], 128).kept
    assert mean_loss(model, found, pad_id=pad) < 1.0
    (answer,) = greedy(
        model, form.prompt_ids([row]), max_new_tokens=40, stop_ids=form.stop_ids, pad_id=pad
    )
    assert "Paris" in form.tokenizer.decode(answer)
    assert len(answer) < 40
