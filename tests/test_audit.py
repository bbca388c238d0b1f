"""The audit reads what XLA made of each layer."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax import lax

from qjax import audit
from qjax.audit import Row, audit_network, audit_program, report
from qjax.integerize import integerize
from qjax.methods.none import NoQuantizer
from qjax.program import ops
from qjax.program.save import save
from qjax.recipe import ends_float
from tests.program.examples import example
from tests.test_agreement import METHODS, MODELS, PIXELS, images, live


def test_layers_of_a_program_and_their_kernels(tmp_path, capsys):
    program = example()
    rows = audit_program(program, 64)
    assert [row.name for row in rows] == ["sum", "logits"]
    assert {row.verdict for row in rows} == {"fast"}
    save(program, tmp_path / "net.qjax")
    assert audit.main([f"file={tmp_path / 'net.qjax'}"]) == 0
    *table, line = capsys.readouterr().out.splitlines()
    assert len(table) == 3 and table[1].split() == ["fast", "s8", "library", "sum"]
    assert json.loads(line) == {"layers": 2, "fast": 2, "elementwise": 0, "slow": 0, "float": 0}


class SlowConv(ops.Conv2D):
    """A convolution as no form here asks for it: few channels, which XLA widens."""

    def compute(self, site, *values):
        x, kernel = values
        return lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            preferred_element_type=jnp.int32,
        )


def test_a_slow_layer_is_found(monkeypatch: pytest.MonkeyPatch, capsys):
    program = example()
    steps = list(program.operators)
    steps[1] = SlowConv(**vars(steps[1]))
    slow = dataclasses.replace(program, operators=tuple(steps))
    rows = audit_program(slow, 64)
    assert [row.verdict for row in rows] == ["slow", "fast"]
    monkeypatch.setattr(audit, "read", lambda path: slow)
    assert audit.main(["file=net.qjax"]) == 1
    assert '"slow": 1' in capsys.readouterr().out


def test_depthwise_and_float_layers_are_told_apart():
    make, side = MODELS["mobilenet"]
    pixels = images(side)
    recipe = ends_float(*METHODS["minmax"](8, 8), keep=NoQuantizer())
    net = live(make(rngs=nnx.Rngs(1)), recipe, pixels)
    network = integerize(net, PIXELS, (side, side, 1))
    found = {row.name: row.verdict for row in audit_network(network, (side, side, 1), 8)}
    ends = set(network.float_layers)
    assert ends and {name for name, verdict in found.items() if verdict == "float"} == ends
    inner = {path for path in found if path not in ends}
    assert {found[path] for path in inner if "depthwise" in path} == {"elementwise"}
    assert {found[path] for path in inner if "depthwise" not in path} == {"fast"}


def test_verdicts_and_report():
    rows = [Row("a", "s8 library"), Row("b", "s8 library, s32 loop"), Row("c", "elementwise")]
    assert [row.verdict for row in rows] == ["fast", "slow", "elementwise"]
    assert json.loads(report(rows)[-1])["slow"] == 1
    assert Row("d", "f32 library").verdict == "float"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["batch=8"], "one of folder=FOLDER and file=FILE must be given"),
        (["file=a", "folder=b"], "one of folder=FOLDER and file=FILE must be given"),
        (["file=none.qjax"], "none.qjax"),
        (["folder=none"], "no such file"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], message: str, capsys):
    assert audit.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_help(capsys):
    assert audit.main(["--help"]) == 0
    assert "python -m qjax.audit folder=FOLDER" in capsys.readouterr().out
    assert jax.default_backend() == "cpu"
