"""A runtime in a process of its own, with limits of memory and time.

A file that a runtime takes can still end it: LiteRT aborts its whole process where a check of a
kernel fails, and a loop of a file may run for years. Here only the runtime's process ends, and what
is left is an error that says why. `Apart` starts that process and speaks with it by pipes; the rest
runs in it, and imports no JAX.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, Self

import numpy as np

from qjax.program.arguments import whole
from qjax.program.litert import Reference
from qjax.program.onnx.session import session

type Name = int | str
type Call = Callable[[Sequence[Name], Mapping[str, np.ndarray]], Sequence[np.ndarray]]
"""(which tensors, inputs by name) -> those tensors."""

_MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a runtime may take.

    Attributes:
        memory: MiB of its process, with what its libraries reserve.
        timeout: seconds for its start, and for each batch of samples.
    """

    memory: int = 8192
    timeout: int = 300


def limits_of(options: Mapping[str, str]) -> Limits:
    """What a command's `memory` and `timeout` say.

    Raises:
        ValueError: not whole numbers from 1.
    """
    return Limits(
        whole(options, "memory", Limits.memory, least=1),
        whole(options, "timeout", Limits.timeout, least=1),
    )


class Apart:
    """A file in a runtime that has a process of its own; as a context, it ends with that.

    Args:
        runtime: `litert` (inputs are named "0", "1", ..., tensors by number) or `onnxruntime`.
        content: of the file.
        limits: of the process.

    Raises:
        ImportError: the runtime is not installed.
        ValueError: it does not take the file, or not within the limits.
    """

    def __init__(self, runtime: str, content: bytes, limits: Limits) -> None:
        self.runtime = runtime
        self.limits = limits
        self._said = tempfile.TemporaryFile()
        command = [sys.executable, "-m", "qjax.program.apart", runtime]
        self._process = subprocess.Popen(
            [*command, str(limits.memory), str(limits.timeout)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            # It has to find the modules that this process has found.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        try:
            self._ask({}, [np.frombuffer(content, np.uint8)])
        except BaseException:
            self.close()
            raise

    def run(self, wanted: Sequence[Name], inputs: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        """Tensors of one batch.

        Args:
            wanted: names or numbers of tensors.
            inputs: by name.

        Raises:
            ValueError: the runtime fails, dies, or passes a limit.
        """
        head = {"wanted": list(wanted), "given": list(inputs)}
        return self._ask(head, list(inputs.values()))

    def _ask(self, head: dict[str, Any], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            _send(self._process.stdin, head, arrays)
            answer, found = _receive(self._process.stdout)
        except (EOFError, BrokenPipeError):
            raise ValueError(self._how_it_died()) from None
        if "missing" in answer:
            raise ImportError(answer["missing"])
        if "error" in answer:
            short = "alloc" in answer["error"]
            hint = f"; memory={self.limits.memory} MiB is its limit" if short else ""
            raise ValueError(answer["error"] + hint)
        return found

    def _how_it_died(self) -> str:
        status = self._process.wait()
        if status == -signal.SIGALRM:
            return (
                f"{self.runtime} took longer than timeout={self.limits.timeout} s for its start or "
                "a batch of samples; give timeout=SECONDS to wait longer"
            )
        self._said.seek(0)
        said = self._said.read()[-500:].decode(errors="replace").strip()
        return (
            f"{self.runtime} ended on the file ({_status(status)}{': ' if said else ''}{said}); if "
            f"it needs more than memory={self.limits.memory} MiB, give memory=MIB"
        )

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _status(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name


def _send(pipe: IO[bytes], head: dict[str, Any], arrays: Sequence[np.ndarray]) -> None:
    """A line of JSON, then the arrays' bytes."""
    forms = [[array.dtype.str, array.shape] for array in arrays]
    pipe.write(json.dumps(head | {"arrays": forms}).encode() + b"\n")
    for array in arrays:
        pipe.write(array.tobytes())
    pipe.flush()


def _receive(pipe: IO[bytes]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """What `_send` sent.

    Raises:
        EOFError: the other end is closed.
    """
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    head, arrays = json.loads(line), []
    for form, shape in head["arrays"]:
        dtype, count = np.dtype(form), int(np.prod(shape, dtype=object))
        content = pipe.read(count * dtype.itemsize)
        if len(content) < count * dtype.itemsize:
            raise EOFError
        arrays.append(np.frombuffer(content, dtype).reshape(shape))
    return head, arrays


def _litert(content: bytes) -> Call:
    reference = Reference(content)

    def call(wanted: Sequence[Name], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        numbers = [int(number) for number in wanted]
        found = reference.run(list(inputs.values()), numbers)
        return [found[number] for number in numbers]

    return call


def _onnxruntime(content: bytes) -> Call:
    started = session(content, optimized=False)

    def call(wanted: Sequence[Name], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        try:
            return started.run(list(wanted), dict(inputs))
        except Exception as error:  # its exception classes have no common one of their own
            raise ValueError(f"onnxruntime does not run the file: {str(error)[:500]}") from error

    return call


_STARTS: Mapping[str, Callable[[bytes], Call]] = {"litert": _litert, "onnxruntime": _onnxruntime}
_MODULES = {"litert": "ai_edge_litert.interpreter", "onnxruntime": "onnxruntime"}


@contextlib.contextmanager
def opened(runtime: str, content: bytes, limits: Limits | None) -> Iterator[Call]:
    """A file in a runtime: under limits in a process of its own, without in this one.

    Args and errors as `Apart`.
    """
    if limits is None:
        yield _STARTS[runtime](content)
    else:
        with Apart(runtime, content, limits) as apart:
            yield apart.run


def main(runtime: str, memory: int, timeout: int) -> None:
    """The process of the runtime: answers until its input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    # What a library prints must not get between the answers.
    os.dup2(2, 1)
    with contextlib.suppress(ImportError):
        # Before the limit, which is for files; the start says what is missing.
        importlib.import_module(_MODULES[runtime])
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory * _MIB if most == resource.RLIM_INFINITY else min(memory * _MIB, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    call: Call | None = None
    while True:
        signal.alarm(0)
        try:
            head, arrays = _receive(sys.stdin.buffer)
        except EOFError:
            return
        # No handler: the signal ends the process, whatever library it is in.
        signal.alarm(timeout)
        found: Sequence[np.ndarray] = []
        answer = {}
        try:
            if call is None:
                call = _STARTS[runtime](arrays[0].tobytes())
            else:
                found = call(head["wanted"], dict(zip(head["given"], arrays, strict=True)))
        except ImportError as error:
            answer = {"missing": str(error)}
        except ValueError as error:
            answer = {"error": str(error)}
        except MemoryError:
            answer = {"error": f"{runtime} could not allocate what the file asks for"}
        _send(answers, answer, found)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
