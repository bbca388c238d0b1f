"""Jobs share a compilation if traced numbers alone tell them apart."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from qjax.launchers.grouping import groups, without_traced
from qjax.launchers.population import grouping_text
from qjax.methods.pact import Pact
from qjax.recipe import Rule
from qjax.train import CONF
from qjax.training.optimizers import Sgd
from qjax.training.schedules import Cosine


def configs(*jobs: str) -> list[DictConfig]:
    """Of jobs given as words with spaces between."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return [compose("config", words.split(), return_hydra_config=True) for words in jobs]


PACT = "+experiment=pact_w4a4"


@pytest.mark.parametrize(
    "words",
    [
        "w_bits=2",
        "a_bits=8",
        "seed=3",
        "optim.learning_rate=0.01",
        "optim.weight_decay=0.1",
        "act.decay=0.5",
        "method=other",
        "run.folder=elsewhere run.progress=false run.tensorboard=false",
    ],
)
def test_traced_numbers_names_and_places_do_not_divide(words: str) -> None:
    assert list(groups(configs(PACT, f"{PACT} {words}")).values()) == [[0, 1]]


@pytest.mark.parametrize(
    "words",
    [
        "epochs=3",
        "batch_size=32",
        "model=lenet5",
        "model.width=8",
        "data=mnist",
        "act=lsq",
        "weight=sawb",
        "recipe=ends_float",
        "optim.momentum=0.5",
        "optim=adam",
        "procedure=finetune",
        "bn=folded_correction",
        "pixels=symmetric",
        "label_smoothing=0.1",
        "run.policy=tflite",
        "run.eval_batch=16",
        "population.stack=true",
    ],
)
def test_everything_else_divides(words: str) -> None:
    assert list(groups(configs(PACT, f"{PACT} {words}")).values()) == [[0], [1]]


def test_groups_keep_the_order_of_their_jobs() -> None:
    jobs = configs(PACT, f"{PACT} epochs=3", f"{PACT} seed=1", f"{PACT} epochs=3 seed=1")
    assert list(groups(jobs).values()) == [[0, 2], [1, 3]]


def test_what_cannot_be_built_is_on_its_own() -> None:
    jobs = configs(f"{PACT} w_bits=9", PACT, f"{PACT} w_bits=9")
    assert list(groups(jobs).values()) == [[0], [1], [2]]


@pytest.mark.parametrize("target", ["tflite", "onnxruntime", "shift", "academic"])
def test_bits_are_traced_under_a_target_too(target: str) -> None:
    jobs = [f"{PACT} target={target}", f"{PACT} target={target} w_bits=2 a_bits=3", PACT]
    assert list(groups(configs(*jobs)).values()) == [[0, 1], [2]]


def test_error_bits_are_traced() -> None:
    jobs = configs("+experiment=dorefa_w1a2g6", "+experiment=dorefa_w1a2g6 g_bits=4")
    assert list(groups(jobs).values()) == [[0, 1]]


WAGE = "+experiment=eight_bit_update"


@pytest.mark.parametrize("words", ["seed=3", "optim.learning_rate=8", "e_bits=4", "method=other"])
def test_rate_and_seed_of_an_update_in_whole_steps_are_traced(words: str) -> None:
    assert list(groups(configs(WAGE, f"{WAGE} {words}")).values()) == [[0, 1]]


@pytest.mark.parametrize("words", ["optim.stochastic=false", "optim.scaled=false", "g_bits=4"])
def test_what_an_update_in_whole_steps_is_divides(words: str) -> None:
    assert list(groups(configs(WAGE, f"{WAGE} {words}")).values()) == [[0], [1]]


def test_numbers_are_taken_out_wherever_they_stand() -> None:
    one, two = (
        {"phases": [Rule(output=Pact(bits)), Sgd(rate)]} for bits, rate in ((2, 0.1), (4, 1))
    )
    assert without_traced(one) == without_traced(two)
    assert hash(without_traced(one)) == hash(without_traced(two))
    other = {"phases": [Rule(output=Pact(2)), Sgd(0.1, schedule=Cosine())]}
    assert without_traced(one) != without_traced(other)


def test_the_grouping_in_words() -> None:
    overrides = [["model=a", "seed=0"], ["model=a", "seed=1"], ["model=b", "seed=0"]]
    assert grouping_text([[0, 1], [2]], overrides).splitlines() == [
        "population: 3 jobs in 2 groups",
        "  2 jobs share one compilation: model=a seed=0, model=a seed=1",
        "  on its own: model=b seed=0",
    ]
    assert grouping_text([[0]], [["seed=0"]]).splitlines()[1] == "  on its own: seed=0"
