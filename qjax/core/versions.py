"""Refuses releases of JAX's library that are known to compute wrong results, before anything runs.

Costs a look into the installed packages' metadata; imports no JAX.
"""

from importlib import metadata

_KNOWN_BAD = {
    "0.10.2": "computes wrong results on CPU (jax issue 39103)",
    "0.11.0": "crashes or hangs on CPU in sums over arrays of seven axes (jax issue 39257)",
}


def check_versions() -> None:
    """Returns if the installed jaxlib is not known to be broken.

    Raises:
        RuntimeError: it is, or it is missing; the message says what to install.
    """
    try:
        installed = metadata.version("jaxlib")
    except metadata.PackageNotFoundError:
        raise RuntimeError("jaxlib is not installed: pip install 'jax>=0.11.1,<0.13'") from None
    if installed in _KNOWN_BAD:
        raise RuntimeError(
            f"jaxlib {installed} {_KNOWN_BAD[installed]}: pip install 'jax>=0.11.1,<0.13'"
        )
