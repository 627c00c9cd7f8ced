"""What this machine has: for `doctor`, and for saying which models fit (see `fits`).

Nothing is imported to find a package's version, no value of a variable is read beyond whether it is
set, and the network is not touched.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Literal

import msgspec

# Variables that hold the keys of well-known teachers and hubs, by what they are for.
KEYS = {
    "OPENAI_API_KEY": "OpenAI",
    "ANTHROPIC_API_KEY": "Anthropic",
    "AZURE_OPENAI_API_KEY": "Azure OpenAI",
    "GEMINI_API_KEY": "Gemini",
    "GOOGLE_API_KEY": "Gemini",
    "GOOGLE_APPLICATION_CREDENTIALS": "Vertex AI",
    "AWS_ACCESS_KEY_ID": "Bedrock",
    "AWS_PROFILE": "Bedrock",
    "DEEPSEEK_API_KEY": "DeepSeek",
    "FIREWORKS_API_KEY": "Fireworks",
    "GROQ_API_KEY": "Groq",
    "MISTRAL_API_KEY": "Mistral",
    "OPENROUTER_API_KEY": "OpenRouter",
    "TOGETHER_API_KEY": "Together",
    "XAI_API_KEY": "xAI",
    "HF_TOKEN": "Hugging Face",
}
_NOT_EXTRAS = frozenset({"all", "dev"})
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)[^;]*(?:;.*\bextra\s*==\s*['\"]([\w-]+)['\"])?")
_NVIDIA = (
    "nvidia-smi",
    "--query-gpu=name,memory.total,memory.free",
    "--format=csv,noheader,nounits",
)
_MIB = 1 << 20


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """An accelerator; memory in bytes. Apple's is the machine's own memory (`kind` "mps")."""

    kind: Literal["cuda", "mps"]
    name: str
    memory: int
    free: int


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A package that an extra asks for; `version` is None where it is not installed."""

    name: str
    extra: str
    version: str | None


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """This machine, as this process may use it; memory and disk in bytes.

    `cores` and `ram` respect the limits of a container. `torch_build` is "cuda", "cpu" or "" (not
    installed), judged by the package's version. `keys` are names of variables that are set.
    """

    python: str
    system: str
    cores: int
    ram: int
    ram_free: int
    disk_free: int
    gpus: list[Gpu]
    packages: list[Package]
    torch_build: Literal["cuda", "cpu", "mps", ""]
    llama_cpp: str | None
    vllm: str | None
    keys: list[str]

    @property
    def gpu(self) -> Gpu | None:
        """The largest accelerator that the installed torch can use, if there is one."""
        usable = [gpu for gpu in self.gpus if gpu.kind == self.torch_build]
        return max(usable, key=lambda gpu: gpu.memory, default=None)

    @property
    def idle_gpu(self) -> bool:
        """Whether a GPU is here that torch, as installed, cannot use."""
        return bool(self.gpus) and bool(self.torch_build) and self.gpu is None


def inspect_machine(folder: str | Path = ".", environ: Mapping[str, str] = os.environ) -> Machine:
    """Look at this machine; `folder` is where runs will be written."""
    total, free = memory()
    return Machine(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} ({platform.machine()})",
        cores=cores(),
        ram=total,
        ram_free=free,
        disk_free=shutil.disk_usage(_existing(Path(folder))).free,
        gpus=find_gpus(total, free),
        packages=extras_packages(),
        torch_build=_torch_build(),
        llama_cpp=version_of("xllamacpp"),
        vllm=version_of("vllm"),
        keys=[name for name in KEYS if environ.get(name)],
    )


def version_of(package: str) -> str | None:
    """The installed version of `package`, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def extras_packages(distribution: str = "selfinstruct") -> list[Package]:
    """What the distribution's extras ask for, with what is installed; empty if it is not."""
    try:
        requirements = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in requirements:
        match = _REQUIREMENT.match(line)
        if match and match[2] and match[2] not in _NOT_EXTRAS:
            found.append(Package(name=match[1], extra=match[2], version=version_of(match[1])))
    return found


def cores() -> int:
    """Processor cores this process may run on, a container's quota included; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = _read(Path("/sys/fs/cgroup/cpu.max")).split()
    if len(quota) == 2 and quota[0].isdigit():
        count = min(count, -(-int(quota[0]) // int(quota[1])))
    return max(count, 1)


def memory() -> tuple[int, int]:
    """Total and free bytes of memory, a container's limit included; free is 0 where unknown."""
    if sys.platform == "win32":
        return _windows_memory()
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    match = re.search(r"MemAvailable:\s+(\d+) kB", _read(Path("/proc/meminfo")))
    free = int(match[1]) * 1024 if match else 0
    limit = _read(Path("/sys/fs/cgroup/memory.max")).strip()
    if limit.isdigit() and int(limit) < total:
        used = _read(Path("/sys/fs/cgroup/memory.current")).strip()
        total = int(limit)
        free = min(free, total - int(used)) if used.isdigit() else min(free, total)
    return total, max(free, 0)


def _windows_memory() -> tuple[int, int]:
    class Status(ctypes.Structure):  # MEMORYSTATUSEX of sysinfoapi.h
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "b", "c", "d", "e", "f")),
        )

    status = Status()
    status.length = ctypes.sizeof(Status)
    windll = getattr(ctypes, "windll")  # noqa: B009 (only Windows has it)
    windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return int(status.total), int(status.free)


def find_gpus(ram: int, ram_free: int) -> list[Gpu]:
    """NVIDIA's GPUs by nvidia-smi, and Apple's, which shares the machine's memory."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return [Gpu(kind="mps", name="Apple GPU", memory=ram, free=ram_free)]
    try:
        answer = subprocess.run(_NVIDIA, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []  # no driver, or one that does not answer: there is no GPU to be used
    return read_nvidia_smi(answer.stdout)


def read_nvidia_smi(text: str) -> list[Gpu]:
    """The GPUs in nvidia-smi's CSV lines of name, total MiB and free MiB; others are left out."""
    gpus = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.rsplit(",", 2)]
        if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
            total, free = int(parts[1]) * _MIB, int(parts[2]) * _MIB
            gpus.append(Gpu(kind="cuda", name=parts[0], memory=total, free=free))
    return gpus


def _torch_build() -> Literal["cuda", "cpu", "mps", ""]:
    """What the installed torch computes on, by its version: ``2.13.0+cpu`` is without CUDA."""
    version = version_of("torch")
    if version is None:
        return ""
    if platform.system() == "Darwin":
        return "mps" if platform.machine() == "arm64" else "cpu"
    tag = version.partition("+")[2]
    if tag:
        return "cuda" if tag.startswith("cu") else "cpu"
    # Without a tag it is the package index's own build: with CUDA on Linux only.
    return "cuda" if platform.system() == "Linux" and platform.machine() == "x86_64" else "cpu"


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    path = path.expanduser().absolute()
    return next((folder for folder in (path, *path.parents) if folder.exists()), Path.cwd())


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""
