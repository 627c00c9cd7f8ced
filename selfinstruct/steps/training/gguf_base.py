"""A GGUF file as a base: converted once to a folder of safetensors, kept in the user's cache.

The weights are what the file holds, dequantized: training then starts from exactly the model that a
local teacher serves from the same file. The conversion is named by the file's SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from selfinstruct.core.errors import MissingDependency, UserError
from selfinstruct.steps.training.runtime import quiet

# Raise it when the same file is to be converted differently.
CONVERTER = 1
SOURCE = "source.json"
HUB = "https://huggingface.co/"
# Files above this are dequantized to bfloat16: float32 would need eight times their size.
LARGE_BYTES = 2 * 2**30


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a converted folder comes from, as the GGUF file's metadata tells."""

    sha256: str
    file: str
    name: str = ""
    license: str = ""
    hub_id: str = ""


def convert_gguf(path: Path, cache: Path) -> Path:
    """The folder under `cache` with the model of the GGUF file at `path`, converted if need be.

    The folder appears whole or not at all, also when two processes convert the same file. Raises
    `UserError` where the file is no GGUF, holds no tokenizer, or is of an architecture that
    transformers does not convert.
    """
    digest = sha256_of(path)
    folder = cache / f"{digest[:16]}-v{CONVERTER}"
    if (folder / SOURCE).is_file():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        working = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=cache))
    except OSError as error:
        raise UserError(f"{cache}: cannot write here ({error.strerror})") from None
    try:
        source = _metadata(path, digest)
        # Its progress bar takes no setting, only another place to write to.
        with quiet(), contextlib.redirect_stderr(io.StringIO()):
            _convert(path, working)
        (working / SOURCE).write_bytes(msgspec.json.encode(source))
        try:
            working.rename(folder)
        except OSError:
            if not (folder / SOURCE).is_file():  # another process was quicker, or a real fault
                raise
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return folder


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hex. Raises `UserError` where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"student.base: {path}: cannot be read ({error.strerror})") from None


def read_source(folder: Path) -> Source | None:
    """What `convert_gguf` noted about the file a folder was made from; None for other folders."""
    try:
        return msgspec.json.decode((folder / SOURCE).read_bytes(), type=Source)
    except (OSError, msgspec.DecodeError):
        return None


def _metadata(path: Path, digest: str) -> Source:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise MissingDependency("gguf", "train", "a GGUF base") from None
    try:
        fields = GGUFReader(path).fields
    except (ValueError, IndexError, OSError) as error:
        raise UserError(f"student.base: {path}: not a GGUF file ({error})") from None

    def text(key: str) -> str:
        found = fields.get(key)
        return str(found.contents()) if found is not None else ""

    url = text("general.source.repo_url") or text("general.repo_url")
    return Source(
        sha256=digest,
        file=path.name,
        name=text("general.name"),
        license=text("general.license"),
        hub_id=url.removeprefix(HUB) if url.startswith(HUB) else "",
    )


def _convert(path: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = torch.bfloat16 if path.stat().st_size > LARGE_BYTES else torch.float32
    where: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    folder = os.fspath(path.parent.resolve())
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **where)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **where)
    except (ValueError, KeyError, NotImplementedError, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"student.base: {path}: transformers cannot convert this GGUF file ({first}); "
            "give the model as a folder of safetensors"
        ) from None
    # What is left is an ordinary model, but its config still says that it is quantized.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer.model_max_length = getattr(model.config, "max_position_embeddings", 2048)
    model.save_pretrained(out)
    save_tokenizer(tokenizer, out)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save `tokenizer` without the loading options of this machine."""
    for option in ("is_local", "local_files_only", "gguf_file", "name_or_path"):
        tokenizer.init_kwargs.pop(option, None)
    tokenizer.save_pretrained(folder)
