"""Jobs of a population leave what single runs leave, bit for bit; stacked ones nearly so."""

import dataclasses
import logging
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from qjax.launchers.jobs import LOG
from qjax.launchers.stack import Stack
from qjax.methods.affine import AffineActivation, AffineWeight
from qjax.methods.dorefa import DoReFaActivation, DoReFaWeight
from qjax.methods.lsq import Lsq
from qjax.methods.pact import Pact
from qjax.methods.wage import WageActivation, WageWeight
from qjax.methods.wage_training import SumOfSquares, WageError, WageStart
from qjax.methods.wage_update import WageSgd
from qjax.models.wage import WageLeNet
from qjax.recipe import Recipe, Rule
from qjax.record import read, read_metrics
from qjax.training.checkpoint import checkpoints, load_arrays
from qjax.training.hooks import Hooks
from qjax.training.loop import PhaseLoop
from qjax.training.optimizers import Sgd
from qjax.training.phases import Phase
from qjax.training.programs import Programs
from qjax.training.run import CHECKPOINTS, Run
from qjax.training.schedules import Constant
from qjax.training.spec import RunSpec
from tests.launchers.command import TINY, command, command_outside, jobs_in
from tests.training.folders import assert_same_run
from tests.training.small import DATA, Tiny, spec

METHODS = {
    "pact": lambda w, a: (AffineWeight(w), Pact(a, decay=0.01 * a)),
    "dorefa": lambda w, a: (DoReFaWeight(w), DoReFaActivation(a)),
    "lsq": lambda w, a: (Lsq(w), Lsq(a, signed=False)),
}
MEMBERS = ((4, 4, 0, 0.1), (2, 3, 1, 0.05), (8, 2, 2, 0.2))
"""Bits of weights and activations, seed, learning rate."""


def member(method: str, w: int, a: int, seed: int, rate: float) -> RunSpec:
    """A run of the tiny network."""
    weight, act = METHODS[method](w, a)
    ends = AffineActivation(8)
    # DoReFa's weights want normalization behind them, which the classifier has not.
    last = Rule("last", weight=AffineWeight(8), input=ends)
    recipe = Recipe((Rule("first", input=ends), last, Rule(weight=weight, output=act)))
    fields = {"w": w, "a": a, "seed": seed, "rate": rate}
    made = spec(Phase("quantized", 2, Sgd(rate)), recipe=recipe, seed=seed, config=fields)
    return dataclasses.replace(made, w_bits=w, a_bits=a, make_model=lambda: Tiny(seed))


@pytest.mark.parametrize(
    "method", ["pact", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dorefa", "lsq"))]
)
def test_runs_that_share_programs_are_the_single_runs(method: str, tmp_path: Path) -> None:
    programs = Programs()
    made = []
    for number, values in enumerate(MEMBERS):
        Run(member(method, *values), tmp_path / f"shared{number}", programs)()
        made.append(programs.made)
    assert set(made) == {made[0]}, "a later member compiled something of its own"
    for number, values in enumerate(MEMBERS[1:], start=1):
        Run(member(method, *values), tmp_path / f"single{number}")()
        assert_same_run(tmp_path / f"shared{number}", tmp_path / f"single{number}")
    sums = {read(tmp_path / f"shared{number}").config_hash for number in range(len(MEMBERS))}
    assert len(sums) == len(MEMBERS)


# Powers of two ask for it.
SYMMETRIC = dataclasses.replace(DATA, mean=(0.5,), std=(0.5,))


def wage(seed: int, rate: float) -> RunSpec:
    """A run of WAGE's network, its weights moved in whole steps."""
    error, act = WageError(8), WageActivation(8)
    rules = (
        Rule("first", input=act),
        Rule("last", error=error),
        Rule(kind="act", output=act, error=error),
        Rule(weight=WageWeight(2)),
    )
    rule = WageSgd(rate, Constant(), seed=seed)
    model = {"image": 6, "widths": (4, 4, 8), "padding": "SAME", "classes": 3}
    made = spec(
        Phase("quantized", 1, rule),
        data=SYMMETRIC,
        recipe=Recipe(rules),
        seed=seed,
        config={"seed": seed, "rate": rate},
        hooks=Hooks(initialise=(WageStart(),), loss=SumOfSquares()),
    )
    return dataclasses.replace(made, make_model=lambda: WageLeNet(**model, rngs=nnx.Rngs(seed)))


@pytest.mark.slow
def test_members_whose_weights_move_in_whole_steps_are_the_single_runs(tmp_path: Path) -> None:
    programs, made = Programs(), []
    members = ((0, 8.0), (1, 1.0))
    for number, values in enumerate(members):
        Run(wage(*values), tmp_path / f"shared{number}", programs)()
        made.append(programs.made)
    assert set(made) == {made[0]}, "a later member compiled something of its own"
    Run(wage(*members[1]), tmp_path / "single")()
    assert_same_run(tmp_path / "shared1", tmp_path / "single")
    ends = [load_arrays(checkpoints(tmp_path / f"shared{n}" / CHECKPOINTS)[-1]) for n in (0, 1)]
    name = next(name for name in ends[0] if name.startswith("trainable"))
    assert not np.array_equal(ends[0][name], ends[1][name])


def test_a_later_member_compiles_its_integer_network_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    programs = Programs()
    Run(member("pact", *MEMBERS[0]), tmp_path / "first", programs)()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        Run(member("pact", *MEMBERS[1]), tmp_path / "second", programs)()
    compiled = re.findall(r"Finished XLA compilation of jit\((\w+)\)", caplog.text)
    # Its scales are constants of its program; nothing else depends on bits, seed or rate.
    assert compiled == ["run"]


def test_loops_that_share_programs_share_steps_and_arrays() -> None:
    programs = Programs()

    def loop(seed: int, epochs: int) -> Any:
        run = member("pact", 4, 4, seed, 0.1)
        phase = dataclasses.replace(run.phases[0], epochs=epochs)
        run = dataclasses.replace(run, phases=(phase,))
        model = run.enter(run.make_model(), 0)
        return PhaseLoop(model, phase, run.data, run.loop_settings(0), programs=programs)

    one, two, longer = loop(0, 2), loop(1, 2), loop(0, 3)
    assert one.batch(0, 0).images is two.batch(0, 0).images is longer.batch(0, 0).images
    assert one.step.func is two.step.func and one.evaluator is two.evaluator
    assert longer.step.func is not one.step.func, "the schedule spans another number of steps"


@pytest.mark.slow
def test_calls_of_several_steps_are_stacked() -> None:
    stack, ends = Stack(2), {}

    def trained(values: tuple, programs: Programs) -> Any:
        run = member("pact", *values)
        settings = dataclasses.replace(run.loop_settings(0), steps_per_call=2)
        model = run.enter(run.make_model(), 0)
        loop = PhaseLoop(model, run.phases[0], run.data, settings, programs=programs)
        for batch in loop.calls(0, loop.steps_per_epoch):
            loop.state, metrics = loop.call(loop.state, batch)
            assert metrics["loss"].shape == (2,)
        return loop.state.trainable

    def work(values: tuple) -> None:
        ends[values] = trained(values, stack.programs)

    stack.run([lambda values=values: work(values) for values in MEMBERS[:2]])
    assert stack.taken == 2
    for values in MEMBERS[:2]:
        single = jax.tree.leaves(trained(values, Programs()))
        for one, other in zip(jax.tree.leaves(ends[values]), single, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3)


COMMANDS = ["+experiment=pact_w4a4", *TINY, "data.train_size=64", "epochs=2"]
RATES = ["optim.learning_rate=0.02", "optim.learning_rate=0.1"]
GRID = ["w_bits=2,4", "seed=0,1", "optim.learning_rate=0.02,0.1"]


def folders(where: Path) -> dict[str, Path]:
    """The records below a folder by name; the name ends with the configuration's hash."""
    return {path.parent.name: path.parent for path in sorted(where.rglob("result.json"))}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["pact_w4a4", "dorefa_w4a4", "lsq_w4a4"])
def test_a_population_is_its_single_runs(
    experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"+experiment={experiment}", *COMMANDS[1:]]
    many, alone = tmp_path / "many", tmp_path / "alone"
    many.mkdir()
    alone.mkdir()
    assert command(monkeypatch, many, "-m", *words, *GRID, "hydra/launcher=population") == 0
    found = folders(many)
    assert len(found) == 8
    for own in (["w_bits=4", "seed=0", RATES[1]], ["w_bits=2", "seed=1", RATES[0]]):
        done = command_outside(alone, *words, *own)
        assert done.returncode == 0, done.stderr
    assert len(folders(alone)) == 2
    for name, folder in folders(alone).items():
        assert_same_run(found[name], folder)
        assert "layer" in (found[name] / LOG).read_text()


@pytest.mark.slow
def test_a_stack_ends_close_to_single_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    many, alone = tmp_path / "many", tmp_path / "alone"
    many.mkdir()
    alone.mkdir()
    # Few steps at a low rate: a rounding that falls otherwise would lead two trainings apart.
    words = [*COMMANDS, "optim.learning_rate=0.001", "w_bits=4,8", "seed=0,1"]
    stack = ["hydra/launcher=population", "population.stack=true"]
    assert command(monkeypatch, many, "-m", *words, *stack) == 0
    assert command(monkeypatch, alone, "-m", *words, "hydra/launcher=population") == 0
    assert "4 jobs share one compilation" in capsys.readouterr().err
    for one, other in zip(jobs_in(many), jobs_in(alone), strict=True):
        assert one.overrides == (*other.overrides, "population.stack=True")
        assert one.folder is not None and other.folder is not None
        first, second = many / one.folder, alone / other.folder
        assert read(first).config_hash != read(second).config_hash, "their numbers differ"
        for a, b in zip(read_metrics(first), read_metrics(second), strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
        arrays = [load_arrays(checkpoints(f / CHECKPOINTS)[-1]) for f in (first, second)]
        for name, array in arrays[0].items():
            if name.startswith("trainable"):
                np.testing.assert_allclose(array, arrays[1][name], atol=1e-3)
        assert (first / LOG).read_text() and (first / "metrics.jsonl").exists()
