"""python -m qjax.doctor: does this machine compute what numpy computes, and by which kernels?

Runs small programs of every kind that qjax relies on, and the patterns that some release of XLA got
wrong, and compares the compiled result with numpy. Prints one line a check: its result, the kernel
its products took (from the compiled program: "s8 library" is fast, "s32 loop" slow), milliseconds.

Exit code: 0 when all agree, 1 when anything that qjax relies on differs or fails, 2 when the
installed jaxlib is known to be broken. A pattern that qjax never uses is marked as avoided, with
what takes its place; its failure is shown, and is no error.
"""

import os
import platform
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from qjax.core import hlo
from qjax.core.exactness import use_exact_products
from qjax.core.selfcheck import Check, checks
from qjax.core.versions import check_versions

__all__ = ["Outcome", "check_versions", "examine", "main"]


class Outcome(NamedTuple):
    """One line of the report; `verdict` is "ok", "WRONG" or "FAILS"."""

    check: Check
    verdict: str
    kernel: str
    milliseconds: float
    detail: str

    @property
    def counts(self) -> bool:
        """Whether this makes the platform unfit for qjax."""
        return self.verdict != "ok" and not self.check.avoided


def examine(check: Check) -> Outcome:
    """Compiles, runs and times one check."""
    try:
        run, kernel = check.run, "operator by operator"
        if check.compiled:
            run = jax.jit(check.run).lower(*check.inputs).compile()
            kernel = hlo.paths(run.as_text() or "")
        got = np.asarray(run(*check.inputs))
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        return Outcome(check, "FAILS", "", 0.0, str(error).splitlines()[0])
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(run(*check.inputs))
        taken.append((time.perf_counter() - start) * 1e3)
    wide_got, wide_expected = got.astype(np.float64), check.expected.astype(np.float64)
    allowed = check.tolerance * float(np.abs(wide_expected).max())
    differing = ~(np.abs(wide_got - wide_expected) <= allowed)
    detail = ""
    if differing.any():
        first = tuple(int(i) for i in np.argwhere(differing)[0])
        values = f"{got[first]} for {check.expected[first]}"
        detail = f"{differing.sum()} of {got.size} differ, first {values}"
    return Outcome(check, "WRONG" if detail else "ok", kernel, statistics.median(taken), detail)


def main() -> int:
    """Prints the report and returns the exit code."""
    try:
        check_versions()
    except RuntimeError as error:
        print(f"refused: {error}")
        return 2
    use_exact_products()
    for name, value in _environment().items():
        print(f"{name:<11} {value}")
    print(f"\n{'check':<44} {'result':<7} {'kernel':<22} {'ms':>8}")
    outcomes = []
    for check in checks():
        outcome = examine(check)
        outcomes.append(outcome)
        note = outcome.detail
        if check.avoided:
            note = f"{note}  (avoided: {check.avoided})"
        line = f"{check.name:<44} {outcome.verdict:<7} {outcome.kernel:<22}"
        print(f"{line} {outcome.milliseconds:8.3f}  {note}".rstrip(), flush=True)
    bad = [outcome.check.name for outcome in outcomes if outcome.counts]
    if bad:
        print(
            f"\n{len(bad)} of {len(outcomes)} checks are wrong on this platform: {', '.join(bad)}"
        )
        print("Do not trust results from here: change the jax release, or set JAX_PLATFORMS=cpu.")
        return 1
    print(f"\n{len(outcomes)} checks: everything qjax relies on agrees with numpy.")
    return 0


def _environment() -> dict[str, str]:
    packages = ("jax", "jaxlib", "flax", "numpy")
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {metadata.version(name)}" for name in packages),
        "platform": f"{jax.default_backend()}, {len(devices)} x {devices[0].device_kind}",
        "processor": f"{platform.machine()}, {os.cpu_count()} cores, {_int8_instructions()}",
        "x64": "on: qjax expects it off" if jax.config.jax_enable_x64 else "off",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "not set"),
    }


def _int8_instructions() -> str:
    """Whether an x86 processor multiplies int8 in fours; without, int8 gains little on float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "int8 instructions unknown"
    return "with VNNI" if "_vnni" in flags else "without VNNI"


if __name__ == "__main__":
    sys.exit(main())
