"""``vllm serve`` as a child process: ``python -m selfinstruct.steps.teachers.vllm_server``.

vLLM does not notice when the process that wanted it is gone, and its workers would keep the GPUs.
So this small program stands between: it starts ``vllm serve`` on a free loopback port, asks its
``/health`` until the model is loaded, prints the address on its standard output, and stops vLLM
with all of its workers when its own standard input is closed, which the operating system does when
the parent dies. The key comes in vLLM's own environment variable, `KEY_VARIABLE`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

KEY_VARIABLE = "VLLM_API_KEY"
HOST = "127.0.0.1"
POLL_S = 0.2
# vLLM's workers give their memory back in this time, or are killed.
GRACE_S = 20.0


def find_vllm() -> list[str] | None:
    """The command that is vLLM's on this machine: on PATH, beside Python, or as a module."""
    beside = Path(sys.executable).with_name("vllm")
    found = shutil.which("vllm") or (str(beside) if beside.is_file() else None)
    if found:
        return [found]
    if find_spec("vllm") is not None:
        return [sys.executable, "-m", "vllm.entrypoints.cli.main"]
    return None


def gpus() -> int:
    """GPUs that vLLM may use: those of CUDA_VISIBLE_DEVICES, else those nvidia-smi lists."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([device for device in chosen.split(",") if device.strip() not in ("", "-1")])
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    lines = listed.stdout.splitlines() if listed.returncode == 0 else []
    return len([line for line in lines if line.startswith("GPU ")])


def serve_command(
    vllm: Sequence[str], model: str, name: str, port: int, args: Sequence[str], devices: int
) -> list[str]:
    """The whole command line.

    One copy of the model is put on each GPU, or on each group of `--tensor-parallel-size` of them;
    `args` may say otherwise with `--data-parallel-size`.
    """
    command = [*vllm, "serve", model, "--host", HOST, "--port", str(port)]
    command += ["--served-model-name", name, *args]
    copies = devices // _number(args, ("--tensor-parallel-size", "-tp"))
    if copies > 1 and not _given(args, ("--data-parallel-size", "-dp")):
        command += ["--data-parallel-size", str(copies)]
    return command


def _given(args: Sequence[str], names: tuple[str, ...]) -> bool:
    return any(arg.partition("=")[0] in names for arg in args)


def _number(args: Sequence[str], names: tuple[str, ...]) -> int:
    """The value of an option among `args`, 1 where it is not there or no number."""
    for n, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name in names:
            text = value if equals else next(iter(args[n + 1 : n + 2]), "")
            return int(text) if text.isdigit() and int(text) else 1
    return 1


def healthy(port: int) -> bool:
    """Whether the server answers, which vLLM does once the model is loaded."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def stop(process: subprocess.Popen[bytes]) -> None:
    """End vLLM and every worker it started."""
    _signal_all(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    if os.name != "nt":
        _signal_all(process, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _signal_all(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.name != "nt":
            os.killpg(process.pid, number)  # the group that start_new_session made
        else:
            process.terminate()


def stop_with_parent(process: subprocess.Popen[bytes]) -> None:
    """End vLLM and this process when the standard input is closed, or on SIGTERM."""

    def end() -> None:
        stop(process)
        os._exit(0)

    def watch() -> None:
        while os.read(0, 1024):
            pass
        end()

    signal.signal(signal.SIGTERM, lambda *_: end())
    threading.Thread(target=watch, name="parent watch", daemon=True).start()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until the parent goes; the exit status is vLLM's where that ends first."""
    parser = argparse.ArgumentParser(prog="python -m selfinstruct.steps.teachers.vllm_server")
    parser.add_argument("--model", required=True, help="a model folder or a Hub id")
    parser.add_argument("--name", required=True, help="the model's name in requests")
    parser.add_argument("args", nargs="*", help="more arguments of `vllm serve`, after --")
    given = parser.parse_args(argv)
    vllm = find_vllm()
    if vllm is None:
        sys.stderr.write("vllm is not installed\n")
        return 1
    # Ctrl-C goes to every process of a terminal; this one must outlive the calls in flight.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    port = _free_port()
    command = serve_command(vllm, given.model, given.name, port, given.args, gpus())
    sys.stderr.write(" ".join(command) + "\n")
    sys.stderr.flush()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
    stop_with_parent(process)
    while not healthy(port):
        if process.poll() is not None:
            _signal_all(process, signal.SIGTERM)
            return process.returncode
        time.sleep(POLL_S)
    sys.stdout.write(f"http://{HOST}:{port}\n")
    sys.stdout.close()
    status = process.wait()
    _signal_all(process, signal.SIGTERM)  # workers that outlived their head
    return status


if __name__ == "__main__":
    sys.exit(main())
