"""Files that appear whole or not at all."""

import os
from pathlib import Path


def write_whole(path: str | Path, content: bytes) -> int:
    """Write a file under another name and rename it; returns its bytes."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return len(content)
