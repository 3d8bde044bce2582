"""Each command's --help ends with examples that its parser takes."""

import pytest
from django.core.management import get_commands, load_command_class

OURS = {name: app for name, app in get_commands().items() if app in ("prices", "consumers", "marketdata")}


@pytest.mark.parametrize("name", sorted(OURS.keys() - {"migrate"}))
def test_help_ends_with_examples(name: str) -> None:
    parser = load_command_class(OURS[name], name).create_parser("manage.py", name)
    examples = parser.format_help().partition("examples:\n")[2].splitlines()
    assert examples
    for example in examples:
        program, command, *words = example.split()
        assert (program, command) == ("manage.py", name)
        parser.parse_args(words)
