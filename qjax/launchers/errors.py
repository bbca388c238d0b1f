"""What a command's user can mend, in one line instead of a traceback."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator

from hydra.errors import InstantiationException

from qjax.core.exactness import use_exact_products
from qjax.core.versions import check_versions
from qjax.training.checkpoint import CheckpointError
from qjax.training.events import EventsError
from qjax.training.loop import NonFiniteError


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what a user can mend into one line on stderr and exit code 1; defects keep a
    traceback.
    """
    try:
        check_versions()
    except RuntimeError as error:
        _fail(str(error))
    use_exact_products()
    try:
        yield
    except InstantiationException as error:
        cause = error.__cause__ or error
        _fail(f"{cause} ({error.args[0].splitlines()[-1]})" if error.args else str(cause))
    except (ValueError, FileNotFoundError, NonFiniteError, CheckpointError, EventsError) as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        _fail(
            f"cannot write {error.filename or 'the record'}: {error.strerror}; free space or make "
            "the folder writable, then repeat the command: it goes on from the last checkpoint"
        )


def _fail(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(1)
