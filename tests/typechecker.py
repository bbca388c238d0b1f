"""The run-time type checker of the tests, told to agree with pyright."""

import typing

from beartype import BeartypeConf, FrozenDict, beartype

check = beartype(
    conf=BeartypeConf(
        # An int is welcome where a float is asked for.
        is_pep484_tower=True,
        # The import hook decorates methods, where beartype cannot know which class `Self` is.
        hint_overrides=FrozenDict({typing.Self: object}),
    )
)
