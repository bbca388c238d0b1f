"""Every hook point, each with a small example: that it is called, when, and with what."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from qjax.methods.affine import AffineWeight
from qjax.surgery import slots
from qjax.training.hooks import CrossEntropy, Hooks
from qjax.training.optimizers import Sgd
from qjax.training.phases import Phase
from qjax.training.schedules import Constant
from qjax.training.step import StepSettings
from tests.training.small import Tiny, loop, spec, steps

RATE = 0.1


def phase(hooks, **more):
    """One quantized phase of plain gradient descent."""
    plain = Sgd(RATE, momentum=0.0, schedule=Constant())
    return Phase("quantized", 1, plain, hooks=hooks, **more)


def after_one_step(hooks):
    """Trainable numbers before and after a step."""
    made = loop(spec(phase(hooks)))
    before = jax.tree.map(jnp.copy, made.state.trainable)
    (state,) = steps(made, 1)
    return before, state.trainable


@dataclasses.dataclass(frozen=True)
class UniformWeights:
    """Weights drawn from U(-limit, limit), as WAGE starts."""

    limit: float

    def __call__(self, model, key):
        shape = model.conv.kernel.shape
        model.conv.kernel[...] = jax.random.uniform(
            key, shape, minval=-self.limit, maxval=self.limit
        )


@dataclasses.dataclass(frozen=True)
class ClipWeights:
    """Weights clipped after the update, as in BinaryConnect."""

    limit: float

    def __call__(self, trainable, update):
        del update
        return jax.tree.map(lambda w: jnp.clip(w, -self.limit, self.limit), trainable)


def test_initial_weights_come_before_quantizers_see_them():
    made = loop(spec(phase(Hooks(initialise=[UniformWeights(0.5)]))))
    kernel = made.state.trainable["conv"]["kernel"][...]
    assert 0.4 < float(jnp.max(jnp.abs(kernel))) <= 0.5
    assert not jnp.array_equal(kernel, Tiny().conv.kernel[...])
    again = loop(spec(phase(Hooks(initialise=[UniformWeights(0.5)]))))
    assert jnp.array_equal(kernel, again.state.trainable["conv"]["kernel"][...])
    other = loop(spec(phase(Hooks(initialise=[UniformWeights(0.5)])), seed=1))
    assert not jnp.array_equal(kernel, other.state.trainable["conv"]["kernel"][...])


@pytest.mark.parametrize("quantized", [True, False])
def test_the_initial_weights_of_a_run_are_drawn_at_its_start_alone(quantized):
    # Drawn again, they would wipe what the phases before have trained.
    run = spec(
        Phase("first", 1, Sgd(0.1), quantized=quantized),
        Phase("second", 1, Sgd(0.1)),
        Phase("third", 1, Sgd(0.1)),
        hooks=Hooks(initialise=(UniformWeights(0.5),)),
    )
    kernels = [Tiny().conv.kernel[...]]
    model = run.make_model()
    for index in range(3):
        model = run.enter(model, index)
        kernels.append(model.conv.kernel[...])  # pyright: ignore[reportAttributeAccessIssue]
    assert not np.array_equal(kernels[0], kernels[1])
    np.testing.assert_array_equal(kernels[2], kernels[1])
    np.testing.assert_array_equal(kernels[3], kernels[1])
    again = spec(phase(Hooks()), phase(Hooks(initialise=[UniformWeights(0.5)])))
    drawn = again.enter(model, 1).conv.kernel[...]  # pyright: ignore[reportAttributeAccessIssue]
    assert not np.array_equal(drawn, kernels[3]), "a phase's own are the phase's"


def test_the_start_of_a_phase_sees_bound_quantizers():
    def widen(model, key):
        del key
        slots(model)["act.output"].numbers["alpha"][...] = jnp.float32(9.0)

    made = loop(spec(phase(Hooks(start=[widen]))))
    assert float(made.state.trainable["act"]["output"]["numbers"]["alpha"][...]) == 9.0


def test_the_loss_can_be_replaced():
    def squares(logits, labels):
        return jnp.sum(jnp.square(logits - jax.nn.one_hot(labels, logits.shape[-1])))

    _, usual = after_one_step(Hooks())
    _, other = after_one_step(Hooks(loss=squares))
    assert not np.array_equal(usual["classifier"]["bias"][...], other["classifier"]["bias"][...])


def test_an_extra_term_adds_its_gradient():
    def pull(seen):
        # Toward zero, at full strength at the end of training: four steps make the phase.
        return 0.5 * seen.progress * jnp.sum(jnp.square(seen.model.classifier.bias[...] - 1))

    before, usual = after_one_step(Hooks())
    _, pulled = after_one_step(Hooks(extra=[pull]))
    change = pulled["classifier"]["bias"][...] - usual["classifier"]["bias"][...]
    expected = -RATE * 0.25 * (before["classifier"]["bias"][...] - 1)
    np.testing.assert_allclose(change, expected, rtol=1e-5)
    np.testing.assert_array_equal(pulled["conv"]["kernel"][...], usual["conv"]["kernel"][...])


def test_gradients_can_be_changed_with_the_quantized_weights_at_hand():
    def to_codes(gradients, update):
        # The pull of ELQ's second term, alone: the weights themselves toward their codes.
        return jax.tree.map(lambda w, q: w - q, update.params, update.quantized())

    before, after = after_one_step(Hooks(gradients=[to_codes]))
    kernel = before["conv"]["kernel"][...]
    q = AffineWeight(4)
    simulated = q({"bits": jnp.int32(4)}, jnp.asarray(kernel))
    np.testing.assert_allclose(
        after["conv"]["kernel"][...], kernel - RATE * (kernel - simulated), rtol=1e-6, atol=1e-7
    )
    np.testing.assert_array_equal(
        after["classifier"]["bias"][...], before["classifier"]["bias"][...]
    )


def test_hooks_of_one_list_have_keys_of_their_own_fresh_at_every_step():
    def draw(gradients, update):
        gradients["classifier"]["bias"][...] = jax.random.uniform(update.key, (3,))
        return gradients

    def subtract(gradients, update):
        gradients["classifier"]["bias"][...] -= jax.random.uniform(update.key, (3,))
        return gradients

    made = loop(spec(phase(Hooks(gradients=[draw, subtract]))))
    biases = [state.trainable["classifier"]["bias"][...] for state in steps(made, 2)]
    first, second = biases[0], biases[1] - biases[0]
    assert np.all(first != 0) and np.all(first != second)
    repeated = loop(spec(phase(Hooks(gradients=[draw, subtract]))))
    np.testing.assert_array_equal(
        list(steps(repeated, 2))[1].trainable["classifier"]["bias"][...], biases[1]
    )


def test_a_projection_has_the_last_word():
    _, after = after_one_step(Hooks(project=[ClipWeights(0.05)]))
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(after))
    assert largest == np.float32(0.05)


def test_a_projection_sees_what_the_optimizer_added():
    def undo(trainable, update):
        return jax.tree.map(lambda new, u: new - u, trainable, update.updates)

    before, after = after_one_step(Hooks(project=[undo]))
    np.testing.assert_allclose(
        after["conv"]["kernel"][...], before["conv"]["kernel"][...], atol=1e-6
    )


def test_hooks_are_values_of_yaml():
    text = """
    _target_: qjax.training.hooks.Hooks
    loss: {_target_: qjax.training.hooks.CrossEntropy, smoothing: 0.1}
    project: [{_target_: tests.training.test_hooks.ClipWeights, limit: 0.5}]
    """
    hooks = instantiate(OmegaConf.create(text), _convert_="all")
    assert hooks == Hooks(loss=CrossEntropy(0.1), project=(ClipWeights(0.5),))


def test_quantized_phases_have_the_hooks_of_the_run_beside_their_own():
    mine, theirs = Hooks(project=(ClipWeights(0.5),)), Hooks(loss=CrossEntropy(weight=0.5))
    phases = (
        Phase("float", 1, Sgd(0.1), quantized=False, hooks=theirs),
        Phase("quantized", 1, Sgd(0.1)),
        Phase("own", 1, Sgd(0.1), hooks=theirs),
    )
    run = spec(*phases, hooks=mine)
    both = Hooks(project=mine.project, loss=theirs.loss)
    assert [run.hooks_of(i) for i in range(3)] == [theirs, mine, both]


@pytest.mark.parametrize(
    ("field", "value"), [("project", (ClipWeights(0.1),)), ("loss", CrossEntropy())]
)
def test_a_run_and_its_phase_cannot_set_the_same_hook(field, value):
    hooks = Hooks(**{field: value})
    with pytest.raises(ValueError, match=f"'quantized' and the run's hooks both set {field}"):
        spec(phase(hooks), hooks=hooks)
    floating = Phase("float", 1, Sgd(0.1), quantized=False, hooks=hooks)
    spec(floating, Phase("quantized", 1, Sgd(0.1)), hooks=hooks)


def test_label_smoothing_is_not_lost_behind_the_loss_of_a_hook():
    smooth = dataclasses.replace(
        spec().settings, step=StepSettings(loss=CrossEntropy(smoothing=0.1))
    )
    with pytest.raises(ValueError, match=r"label_smoothing is 0\.1, but phase 'quantized' has"):
        spec(phase(Hooks(loss=CrossEntropy(weight=0.5))), settings=smooth)
    spec(phase(Hooks(loss=CrossEntropy(0.1, weight=0.5))), settings=smooth)
    spec(phase(Hooks()), settings=smooth)


@pytest.mark.parametrize("field", ["initialise", "start", "extra", "gradients", "project"])
def test_what_is_no_list_of_callables_is_refused(field):
    with pytest.raises(TypeError, match=field):
        Hooks(**{field: ["clip"]})  # pyright: ignore[reportArgumentType]


def test_a_loss_that_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match="loss"):
        Hooks(loss="cross_entropy")  # pyright: ignore[reportArgumentType]


def test_cross_entropy_smooths_and_weighs():
    logits, labels = jnp.array([[2.0, 0.0]]), jnp.array([0])
    p = np.exp([2.0, 0.0]) / np.exp([2.0, 0.0]).sum()
    np.testing.assert_allclose(CrossEntropy()(logits, labels), -np.log(p[0]), rtol=1e-6)
    soft = -(0.95 * np.log(p[0]) + 0.05 * np.log(p[1]))
    np.testing.assert_allclose(CrossEntropy(0.1, 0.5)(logits, labels), 0.5 * soft, rtol=1e-6)
    with pytest.raises(ValueError, match="smoothing"):
        CrossEntropy(1.0)
    with pytest.raises(ValueError, match="weight"):
        CrossEntropy(weight=0.0)
