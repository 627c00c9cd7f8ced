"""The llama.cpp server as a child process: ``python -m selfinstruct.steps.teachers.llama_server``.

It serves one GGUF file on a loopback port of its own choosing, prints the address on its standard
output when the model is loaded, and lives exactly as long as its standard input stays open. The
operating system closes that when the parent dies, by whatever signal; the child then exits, at once
when it serves and right after loading while it loads. The key comes in the environment variable
`KEY_VARIABLE`, so that no other program on this machine, a web page say, may use the server.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Sequence
from typing import Any

KEY_VARIABLE = "SELFINSTRUCT_LLAMA_KEY"
# llama.cpp's levels: 1 errors, 2 warnings, 3 a line or more for each call.
_WARNINGS = 2


def parameters(given: argparse.Namespace, key: str) -> Any:
    """llama.cpp's settings: what the teacher asked for, and everything off that it does not use."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = given.model
    params.model_alias = {given.alias}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.n_parallel = given.parallel
    params.n_ctx = given.context * given.parallel
    params.n_threads_http = given.parallel + 4
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = given.threads
        cpu.poll = 0  # threads that spin while they wait take the cores of everything else
    params.n_gpu_layers = given.gpu_layers
    params.sampling.seed = given.seed
    params.cache_ram_mib = 0  # prompts differ: a cache of them would only take up to 8 GB
    params.cache_idle_slots = False
    params.verbosity = _WARNINGS
    params.offline = True
    params.models_autoload = False
    params.ui = False
    params.ui_mcp_proxy = False
    params.endpoint_slots = False
    params.endpoint_props = False
    params.endpoint_metrics = False
    return params


def exit_with_parent() -> None:
    """End this process when its standard input is closed."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(0)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until the parent goes."""
    parser = argparse.ArgumentParser(prog="python -m selfinstruct.steps.teachers.llama_server")
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--alias", required=True, help="the model's name in replies")
    parser.add_argument("--parallel", type=int, required=True, help="calls at once")
    parser.add_argument("--context", type=int, required=True, help="tokens for each of them")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--gpu-layers", type=int, required=True, help="-1 for as many as fit")
    parser.add_argument("--seed", type=int, required=True, help="for calls without a seed")
    given = parser.parse_args(argv)
    key = os.environ.pop(KEY_VARIABLE)
    # Ctrl-C goes to every process of a terminal; this one must outlive the calls in flight.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # llama.cpp prints to file descriptor 1: keep the parent's pipe for the address alone.
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    exit_with_parent()

    import xllamacpp

    server = xllamacpp.Server(parameters(given, key))
    pipe.write(server.listening_address + "\n")
    pipe.close()
    threading.Event().wait()


if __name__ == "__main__":
    main()
