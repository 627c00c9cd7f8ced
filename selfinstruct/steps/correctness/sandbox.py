"""Running code of a dataset in a child process with limits. A seat belt, not a security boundary.

The child is Python in isolated mode (`-I`) in an empty temporary folder, with an empty environment,
limits on processor time, memory, file size, open files and processes, and a limit on wall time
after which its whole process group is killed. It has no network where `unshare` gives it a
namespace of its own; there and elsewhere an audit hook refuses sockets, other processes and writing
outside the folder. Code that means harm can get around an audit hook: run a dataset you do not
trust in a container or a virtual machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from selfinstruct.core.errors import RecipeError

SECONDS = 5  # of processor time; four times as many on the clock
MEMORY = 512 * 1024 * 1024  # bytes of address space
_OUTPUT = 64 * 1024  # bytes of a file the program may write, its error text among them

# Runs in the child. What is imported before the hook stays usable, so that the code may import from
# the standard library but open nothing else for writing.
_CHILD = """
import os, resource, sys, traceback
seconds, memory, size = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for name, limit in (("CPU", (seconds, seconds + 1)), ("AS", memory), ("FSIZE", size),
                    ("NOFILE", 64), ("CORE", 0), ("NPROC", 64)):
    try:
        both = limit if isinstance(limit, tuple) else (limit, limit)
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), both)
    except (ValueError, OSError):
        pass
source = open("program.py", encoding="utf-8").read()
code = compile(source, "program.py", "exec")
folder = os.path.realpath(".") + os.sep
refused = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn",
           "os.spawn", "os.kill", "os.putenv", "ctypes.", "shutil.", "os.remove", "os.rename",
           "os.rmdir", "os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate",
           "urllib.", "ftplib.", "smtplib.", "webbrowser.", "pty.", "signal.")
def hook(event, args):
    if event.startswith(refused):
        raise PermissionError(event + " is not allowed here")
    if event == "open" and isinstance(args[0], (str, bytes)):
        flags = args[2] if isinstance(args[2], int) else 0
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC):
            if not os.path.realpath(os.fsdecode(args[0])).startswith(folder):
                raise PermissionError("writing outside the folder is not allowed here")
sys.argv = ["program.py"]
sys.addaudithook(hook)
try:
    exec(code, {"__name__": "__main__"})
except SystemExit:
    pass
except BaseException as error:
    kinds = " ".join(kind.__name__ for kind in type(error).__mro__)
    sys.stderr.write("\\n" + kinds + "\\t" + traceback.format_exception_only(error)[-1][:300])
    sys.stderr.flush()
    os._exit(70)
os._exit(0)
"""
# What says more about the place it ran in than about the code.
_EXCUSED = frozenset({"EOFError", "ImportError", "OSError", "MemoryError"})


def require_limits() -> None:
    """Raises `RecipeError` where this system cannot limit a child."""
    if os.name != "posix":
        raise RecipeError(
            "running code needs Linux or macOS; set filters.correctness.failing_python to off"
        )


def run_python(code: str, seconds: int = SECONDS) -> str:
    """How running `code` failed, in words, or "".

    No failure is: reading from the keyboard, a package or file that is not there, a network that is
    not there. Raises `RecipeError` where this system cannot limit a child.
    """
    require_limits()
    with tempfile.TemporaryDirectory(prefix="selfinstruct-") as folder:
        (Path(folder) / "program.py").write_text(code, "utf-8", errors="replace")
        with (Path(folder) / "stderr").open("w+b") as errors:
            child = subprocess.Popen(
                [*_without_network(), sys.executable, "-I", "-c", _CHILD, str(seconds),
                 str(MEMORY), str(_OUTPUT)],
                cwd=folder, env={"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": folder},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
                start_new_session=True,
            )  # fmt: skip
            try:
                status = child.wait(4 * seconds)
            except subprocess.TimeoutExpired:
                return f"it was not done after {4 * seconds} s"
            finally:
                _kill(child)
            errors.seek(0)
            said = errors.read(_OUTPUT).decode("utf-8", "replace")
    return _failure(status, said)


def _failure(status: int, said: str) -> str:
    if status == 0:
        return ""
    kinds, _, message = said.rpartition("\n\n")[2].strip().rpartition("\n")[2].partition("\t")
    if status == 70 and message:
        return "" if _EXCUSED & set(kinds.split()) else message.strip()
    if status == -signal.SIGXCPU:
        return "it used up its processor time"
    if status < 0 or status > 128:
        number = -status if status < 0 else status - 128
        return f"it was stopped by signal {number}"
    return f"it ended with status {status}"


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End the child and what it may have started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@cache
def _without_network() -> Sequence[str]:
    """The command that runs another one without a network, where there is one that works."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    command = (unshare, "--user", "--map-root-user", "--net", "--")
    try:
        done = subprocess.run([*command, "true"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return command if done.returncode == 0 else ()
