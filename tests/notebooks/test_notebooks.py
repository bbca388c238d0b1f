"""Every notebook runs on the records in the tree, and is kept without outputs."""

import json
import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECONDS = 300
"""Each takes some seconds; the rest is for a busy machine."""


def named(path: Path) -> str:
    return path.stem


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_a_notebook_is_kept_without_outputs(path: Path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert "Thesis" in "".join(cells[0]["source"])
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


# The kernel's client is not ours: its event loop and sockets may warn as they like.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_a_notebook_runs(path: Path):
    needed = ("nbformat", "nbclient", "ipykernel")
    reason = "notebooks need the extra: pip install -e '.[notebooks]'"
    nbformat, nbclient, _ = (pytest.importorskip(name, reason=reason) for name in needed)
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(FOLDER)}}
    client = nbclient.NotebookClient(notebook, timeout=SECONDS, resources=resources)
    # A picture that nobody could see would pass under a backend without a screen.
    inline = "module://matplotlib_inline.backend_inline"
    client.execute(env=os.environ | {"MPLBACKEND": inline, "JAX_PLATFORMS": "cpu"})
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    assert any("image/png" in out.get("data", ()) for out in outputs), "it draws nothing"
    warned = [out.text for out in outputs if out.get("name") == "stderr"]
    assert not warned, "".join(warned)
