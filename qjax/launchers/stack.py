"""Members that step together: one program, the members along a new first axis (`vmap`).

Each member is an ordinary run in a thread of its own, but only one of them works at a time: a
member that comes to a training step waits until all others stand at one too. Then the step is taken
for all at once, and each goes on with its part. For accelerators, which one small network does not
fill; the numbers may differ from single runs in the last bits.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from qjax.training.console import Stream
from qjax.training.programs import Programs

Step = Callable[..., tuple[Any, Any]]


def stacked(step: Step, members: int) -> Callable[[Sequence[tuple]], Sequence[tuple]]:
    """A compiled function: the members' arguments -> the members' results.

    Args:
        step: `(key, state, batch) -> (state, metrics)`, one step or a scan over several.
        members: how many.
    """

    results: dict[Any, Any] = {}

    # Leaves, not trees: those of several members together are no valid state.
    def together(structures: tuple, states: list, own: list, common: dict) -> list[list]:
        def member(state: list, own: dict) -> list:
            rest = [leaf for _, leaf in sorted((own | common).items())]
            state, (key, batch) = map(jax.tree.unflatten, structures, (state, rest))
            leaves, results[structures] = jax.tree.flatten(step(key, state, batch))
            return leaves

        stack = [jax.tree.map(_stack, *part) for part in (states, own)]
        found = jax.vmap(member)(*stack)
        return [[leaf[place] for leaf in found] for place in range(members)]

    compiled = jax.jit(together, static_argnums=0, donate_argnums=1)
    shared: set[int] = set()

    def call(arguments: Sequence[tuple]) -> Sequence[tuple]:
        # Places of members that are done are filled, so that the program stays the same; the step
        # takes the states' buffers, so each place needs its own.
        key, state, batch = arguments[0]
        structures = jax.tree.structure(state), jax.tree.structure((key, batch))
        missing = members - len(arguments)
        states = [jax.tree.leaves(one) for _, one, _ in arguments]
        states += [[jnp.copy(leaf) for leaf in states[0]] for _ in range(missing)]
        rest = [dict(enumerate(jax.tree.leaves((key, batch)))) for key, _, batch in arguments]
        rest += rest[:1] * missing
        # What was shared once stays so: the last member shares everything with its copies.
        if not shared or not shared <= _same(rest):
            shared.clear()
            shared.update(_same(rest))
        common = {place: rest[0][place] for place in shared}
        own = [{place: one[place] for place in one.keys() - shared} for one in rest]
        found = compiled(structures, states, own, common)[: len(arguments)]
        return [jax.tree.unflatten(results[structures], leaves) for leaves in found]

    return call


def _stack(*leaves: Any) -> Any:
    return jnp.stack(leaves)


def _same(members: Sequence[dict[int, Any]]) -> set[int]:
    """Places of the leaves that are the very same array for all members: one is enough of them."""
    first = members[0]
    return {place for place in first if all(one[place] is first[place] for one in members)}


class Stack:
    """Runs functions in turn, one thread each, and takes their training steps together.

    Args:
        members: how many there can be.

    Attributes:
        programs: to be given to every member.
        taken: steps taken together.
    """

    def __init__(self, members: int):
        self.members = members
        self.programs = Programs(self._adapt)
        self.taken = 0
        self._turn = threading.Condition()
        self._working = 0
        self._places: dict[int, int] = {}
        # Who waits for a step, by the step and by place; and what a step gave, by place.
        self._asked: dict[int, tuple[Callable, dict[int, tuple]]] = {}
        self._given: dict[int, Any] = {}

    def run(self, work: Sequence[Callable[[], None]]) -> None:
        """Call every function to its end.

        Args:
            work: one for each member, at most `members`; none may raise.
        """
        assert len(work) <= self.members, "a stack has a place for each member"
        self._working = len(work)
        threads = [
            threading.Thread(target=self._member, args=(place, call), daemon=True)
            for place, call in enumerate(work)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _member(self, place: int, call: Callable[[], None]) -> None:
        with self._turn:
            self._places[threading.get_ident()] = place
            try:
                call()
            finally:
                self._working -= 1
                self._step_if_all_wait()

    def _adapt(self, key: Hashable, function: Any) -> Any:
        if not (isinstance(key, tuple) and key[0] == "step"):
            return function
        call = stacked(function.__wrapped__, self.members)

        def wait(*arguments: Any) -> tuple[Any, Any]:
            me = self._places[threading.get_ident()]
            self._asked.setdefault(id(call), (call, {}))[1][me] = arguments
            self._step_if_all_wait()
            self._turn.wait_for(lambda: me in self._given)
            given = self._given.pop(me)
            if isinstance(given, Exception):
                raise given
            return given

        return wait

    def _step_if_all_wait(self) -> None:
        """Take the steps that are asked for once no member can go on without one."""
        if sum(len(asked) for _, asked in self._asked.values()) < self._working:
            return
        for call, asked in self._asked.values():
            # In the order of the members, since a place may decide about last bits.
            places = sorted(asked)
            try:
                results: Sequence[Any] = call([asked[place] for place in places])
                self.taken += 1
            except Exception as error:
                results = [error] * len(places)
            self._given |= dict(zip(places, results, strict=True))
        self._asked.clear()
        self._turn.notify_all()


class Router(io.TextIOBase):
    """A text stream that sends what each thread writes to that thread's own file.

    Args:
        rest: for threads without one.
    """

    def __init__(self, rest: Stream):
        self._rest = rest
        self._files: dict[int, Stream] = {}

    def write(self, text: str, /) -> int:
        """Write where the calling thread's text belongs."""
        return self._files.get(threading.get_ident(), self._rest).write(text)

    def flush(self) -> None:
        """Write out what is buffered."""
        self._files.get(threading.get_ident(), self._rest).flush()

    @contextlib.contextmanager
    def logged(self, path: Path) -> Iterator[None]:
        """Send what this thread prints in the meantime to the end of a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        me = threading.get_ident()
        with path.open("a", encoding="utf-8") as file:
            self._files[me] = file
            try:
                yield
            finally:
                del self._files[me]
