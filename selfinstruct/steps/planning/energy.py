"""What a training drew, where it can be read: nvidia-smi for GPUs, RAPL for processors.

Readings are of the whole device, so whatever else runs on it is in them too.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

SAMPLE_SECONDS = 10.0
_RAPL = Path("/sys/class/powercap")
_NVIDIA = ("nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits", "-i")


class Meter:
    """Measures what is drawn from `with` to its end.

    Args:
        gpus: read the GPUs' draw; the processors' counters otherwise.
        rapl: the folder of the kernel's counters.
    """

    def __init__(self, *, gpus: bool, rapl: Path = _RAPL) -> None:
        self._gpus = gpus
        self._rapl = rapl
        self._sampled: float | None = None
        self._before: dict[str, float] | None = None
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Meter:
        if not self._gpus:
            self._before = self._joules()
        elif _gpu_watts() is not None:
            self._sampled = 0.0
            self._thread = threading.Thread(target=self._sample, name="power", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def kwh(self) -> float | None:
        """kWh so far; None where nothing can be read."""
        if self._gpus or self._before is None:
            return self._sampled
        now = self._joules()
        # The counters wrap around; a training longer than that has no honest figure.
        if now is None or any(now[name] < self._before[name] for name in self._before):
            return None
        return sum(now[name] - self._before[name] for name in now) / 3.6e6

    def _sample(self) -> None:
        last = time.monotonic()
        while not self._done.is_set():
            self._done.wait(SAMPLE_SECONDS)
            watts, now = _gpu_watts(), time.monotonic()
            if watts is not None and self._sampled is not None:
                self._sampled += watts * (now - last) / 3.6e6
            last = now

    def _joules(self) -> dict[str, float] | None:
        """Joules of each processor package so far; None where they cannot be read."""
        found = {}
        for folder in sorted(self._rapl.glob("*-rapl:[0-9]")):
            try:
                found[folder.name] = int((folder / "energy_uj").read_text()) / 1e6
            except (OSError, ValueError):
                return None
        return found or None


def _gpu_watts() -> float | None:
    """Watts of the GPUs that train now, or None."""
    try:
        answer = subprocess.run(
            [*_NVIDIA, used_gpus()], capture_output=True, text=True, timeout=20, check=True
        )
        draws = [float(line) for line in answer.stdout.split()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return sum(draws) if draws else None


def used_gpus(environ: Mapping[str, str] = os.environ) -> str:
    """The GPUs that this machine's processes of a training use, as nvidia-smi is told them."""
    count = int(environ.get("LOCAL_WORLD_SIZE", "1"))
    seen = environ.get("CUDA_VISIBLE_DEVICES", "")
    ids = [one.strip() for one in seen.split(",")] if seen else [str(at) for at in range(count)]
    return ",".join(ids[:count])
