"""Some dozens of the wrong files of which `fuzz_files.py` in experiments reads thousands."""

import time
from pathlib import Path

import pytest

from experiments.reliability.fuzz_files import FORMS, write_sound
from experiments.reliability.mutations import changed
from qjax.inspect import read, totals
from qjax.program.formats import FORMATS

pytest.importorskip("onnx", reason="comes with qjax[export]")
pytest.importorskip("ai_edge_litert", reason="comes with qjax[export]")

TRIED = 60


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    write_sound(folder)
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_a_wrong_file_is_refused_or_is_a_program(form: str, sound: Path, tmp_path: Path):
    name = FORMATS[form].file
    content, path = (sound / name).read_bytes(), tmp_path / name
    refused = 0
    for seed in range(TRIED):
        path.write_bytes(changed(form, content, seed))
        started = time.process_time()
        try:
            program = read(path)
        except ValueError as error:
            assert str(error)
            refused += 1
        else:
            assert str(program) and totals(program, 1)
        assert time.process_time() - started < 5
    assert TRIED // 4 < refused < TRIED
