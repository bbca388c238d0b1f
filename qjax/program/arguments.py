"""KEY=VALUE arguments of the commands that need no configuration files."""

from collections.abc import Mapping, Sequence


def key_values(arguments: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """Arguments by key.

    Raises:
        ValueError: an argument of another form, an unknown key, or one given twice.

    >>> key_values(["file=net.tflite", "samples=10"], ("file", "samples"))
    {'file': 'net.tflite', 'samples': '10'}
    """
    options: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key not in keys or not value:
            raise ValueError(
                f"arguments must be KEY=VALUE with KEY one of {', '.join(keys)}; got {argument!r}"
            )
        if key in options:
            raise ValueError(f"{key} must be given once, got it twice")
        options[key] = value
    return options


def whole(options: Mapping[str, str], key: str, default: int, least: int) -> int:
    """A whole number from `least`, or the default where the key is not given.

    Raises:
        ValueError: anything else.
    """
    text = options.get(key, str(default))
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"{key} must be a whole number from {least}, got {text}")
    return int(text)


def flag(options: Mapping[str, str], key: str, default: bool) -> bool:
    """true or false, or the default where the key is not given.

    Raises:
        ValueError: anything else.
    """
    text = options.get(key, str(default).lower())
    if text not in ("true", "false"):
        raise ValueError(f"{key} must be true or false, got {text}")
    return text == "true"
