"""Members that step together: one call for all, whoever comes late, fails or ends early."""

import dataclasses
import io
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from qjax.launchers.stack import Router, Stack, stacked


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """As a training step receives it."""

    images: Array
    index: Array


IMAGES = jnp.arange(12.0).reshape(4, 3)


def step(key: Array, state: dict[str, Array], batch: Batch) -> tuple[dict[str, Array], Array]:
    """One step of nothing in particular that uses all it is given."""
    noise = jax.random.uniform(key, (3,))
    total = state["w"] * batch.images[batch.index].sum(0) + noise
    return {"w": total, "n": state["n"] + 1}, total.sum()


def arguments(member: int, images: Array = IMAGES) -> tuple[Array, dict[str, Array], Batch]:
    state = {"w": jnp.full(3, 1.0 + member), "n": jnp.int32(member)}
    return jax.random.key(member), state, Batch(images, jnp.array([member % 4, 1]))


def close(a: Any, b: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), a, b)


@pytest.mark.parametrize("members, present", [(3, 3), (3, 1), (4, 2)])
def test_a_stacked_step_is_each_members_step(members: int, present: int) -> None:
    call = stacked(step, members)
    for _ in range(2):
        found = call([arguments(member) for member in range(present)])
        assert len(found) == present
        for member, one in enumerate(found):
            close(one, step(*arguments(member)))


def test_members_may_have_images_of_their_own() -> None:
    own = [IMAGES + member for member in range(3)]
    found = stacked(step, 3)([arguments(member, own[member]) for member in range(3)])
    for member, one in enumerate(found):
        close(one, step(*arguments(member, own[member])))


def test_several_steps_in_one_call_are_stacked_as_well() -> None:
    def scan(key: Array, state: dict[str, Array], batch: Batch) -> Any:
        def body(state: Any, index: Array) -> Any:
            return step(key, state, dataclasses.replace(batch, index=index))

        return jax.lax.scan(body, state, batch.index)

    given = [arguments(member) for member in range(2)]
    many = [
        (key, state, dataclasses.replace(batch, index=jnp.stack([batch.index] * 5)))
        for key, state, batch in given
    ]
    expected = [jax.jit(scan)(*one) for one in many]
    for one, other in zip(stacked(scan, 2)(many), expected, strict=True):
        close(one, other)


def test_the_program_stays_when_members_end() -> None:
    traced = []

    def counted(*given: Any) -> Any:
        traced.append(None)
        return step(*given)

    call = stacked(counted, 3)
    for present in (3, 2, 1, 1):
        call([arguments(member) for member in range(present)])
    assert len(traced) == 1


def together(lengths: list[int], members: int | None = None) -> tuple[Stack, list[Any]]:
    """A stack after members that take so many steps each, and their last states."""
    stack = Stack(members or len(lengths))
    ends: list[Any] = [None] * len(lengths)

    def member(place: int) -> None:
        call = stack.programs.get(("step", 1), lambda: jax.jit(step))
        key, state, batch = arguments(place)
        for _ in range(lengths[place]):
            state, _ = call(key, state, batch)
        ends[place] = state

    stack.run([lambda place=place: member(place) for place in range(len(lengths))])
    return stack, ends


@pytest.mark.parametrize("lengths", [[3, 3, 3], [1, 4, 2], [0, 2]])
def test_members_take_their_steps_together(lengths: list[int]) -> None:
    stack, ends = together(lengths)
    assert stack.taken == max(lengths)
    for place, length in enumerate(lengths):
        key, state, batch = arguments(place)
        for _ in range(length):
            state, _ = step(key, state, batch)
        close(ends[place], state)


def test_a_stack_serves_a_smaller_batch_of_members_again() -> None:
    stack, _ = together([2, 2], members=3)
    assert stack.taken == 2
    with pytest.raises(AssertionError, match="a place for each"):
        stack.run([lambda: None] * 4)


def test_a_member_that_fails_leaves_the_others_alone() -> None:
    stack, ends = Stack(2), []

    def good() -> None:
        call = stack.programs.get(("step", 1), lambda: jax.jit(step))
        key, state, batch = arguments(0)
        for _ in range(3):
            state, _ = call(key, state, batch)
        ends.append(int(state["n"]))

    def bad() -> None:
        call = stack.programs.get(("step", 1), lambda: jax.jit(step))
        call(*arguments(1))
        try:
            raise ValueError("as `carry_out` would catch it")
        except ValueError:
            return

    stack.run([good, bad])
    assert ends == [3]


def test_an_error_of_the_program_reaches_every_member() -> None:
    stack, seen = Stack(2), []

    def broken(key: Array, state: Any, batch: Any) -> Any:
        raise TypeError("no such product")

    def member(place: int) -> None:
        call = stack.programs.get(("step", 1), lambda: jax.jit(broken))
        try:
            call(*arguments(place))
        except TypeError as error:
            seen.append(str(error))

    stack.run([lambda: member(0), lambda: member(1)])
    assert seen == ["no such product"] * 2


def test_only_one_member_works_at_a_time() -> None:
    stack, inside = Stack(3), []

    def member() -> None:
        for _ in range(50):
            inside.append(None)
            assert len(inside) == 1
            inside.pop()

    stack.run([member] * 3)


def test_what_is_no_step_is_taken_as_it_is() -> None:
    stack = Stack(2)
    assert stack.programs.get(("evaluator", 1), lambda: "one") == "one"


def test_what_threads_print_goes_into_their_own_files(tmp_path: Path) -> None:
    rest = io.StringIO()
    router = Router(rest)

    def work(name: str) -> None:
        with router.logged(tmp_path / name / "log"):
            router.write(name)
            router.flush()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    router.write("main")
    assert [(tmp_path / name / "log").read_text() for name in ("a", "b")] == ["a", "b"]
    assert rest.getvalue() == "main"
