"""The curves are the quantizers' own values and gradients, drawn without a formula of their own."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from qjax.core.gradients import clip_straight_through, straight_through
from qjax.methods.affine import AffineWeight
from qjax.methods.limited_precision import LimitedGradient
from qjax.methods.pact import Pact
from qjax.plots import axis_of, curve, draw


def test_pact_gives_its_clip_nothing_inside_the_range():
    # Eq. 3 of PACT: 0 below alpha, 1 from alpha on.
    drawn = curve(Pact(bits=4, alpha_init=6.0), "activation", np.array([0.3, 5.9, 6.0, 7.0]))
    assert drawn.learned["alpha"].tolist() == [0, 0, 1, 1]
    assert drawn.slope.tolist() == [1, 1, 0, 0]


def test_the_composition_is_another_method():
    # d/dalpha of (alpha/15) round(15 x/alpha) with a straight-through round, x = 0.3: the value
    # 0.4 / 6 less x / alpha = 0.05, so 0.0167.
    def composed(alpha):
        steps = clip_straight_through(0.3 / alpha, 0.0, 1.0) * 15
        return straight_through(steps, jnp.round(steps)) * alpha / 15

    np.testing.assert_allclose(jax.grad(composed)(6.0), 0.4 / 6 - 0.3 / 6, rtol=1e-4)


def test_a_weight_is_one_channel():
    # max|x| = 1 and 2 bits: the levels are -1, 0 and 1, one scale for all elements.
    x = np.array([-1.0, -0.4, 0.2, 0.6])
    drawn = curve(AffineWeight(bits=2, per_channel=True), "weight", x)
    assert drawn.y.tolist() == [-1, 0, 0, 1]
    assert drawn.learned == {}


def test_a_drawing_holds_the_values_of_its_curve():
    drawn = curve(Pact(bits=2, alpha_init=1.0), "activation", axis_of("activation"))
    forward, backward = Figure().subplots(1, 2)
    draw(drawn, forward, backward)
    np.testing.assert_array_equal(forward.lines[1].get_ydata(), drawn.y)
    labels = [text.get_text() for text in backward.get_legend().get_texts()]
    assert labels == ["dy/dx", "dy/dalpha"]


def test_a_gradient_quantizer_is_drawn_by_what_flows_back():
    # Three bits: codes -3..3 of a third of the largest gradient; forward the identity.
    x = np.array([-3.0, -0.75, 0.25, 1.75])
    drawn = curve(LimitedGradient(bits=3, unbiased=False), "error", x)
    assert drawn.y.tolist() == x.tolist() and drawn.slope.tolist() == [-3, -1, 0, 2]
    one = curve(LimitedGradient(bits=3), "error", axis_of("error"))
    assert set(np.round(one.slope / 0.4).tolist()) == set(range(-3, 4)), "one draw, on the grid"
    forward, backward = Figure().subplots(1, 2)
    draw(one, forward, backward)
    assert backward.get_xlabel() == "gradient in"
    np.testing.assert_array_equal(backward.lines[1].get_ydata(), one.slope)


def test_importing_it_loads_no_plotting_library():
    code = "import sys, qjax.plots; print('matplotlib' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
