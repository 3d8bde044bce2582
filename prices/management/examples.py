"""Examples at the end of a command's --help."""

from argparse import ArgumentParser

from django.core.management.base import DjangoHelpFormatter

_HEADING = "examples:"


class _Formatter(DjangoHelpFormatter):
    def _fill_text(self, text: str, width: int, indent: str) -> str:
        # Lines of examples stay as they are; all else is wrapped.
        return text if text.startswith(_HEADING) else super()._fill_text(text, width, indent)


def add_examples(parser: ArgumentParser, *commands: str) -> None:
    """End the parser's help with these, each without its `manage.py`."""
    parser.epilog = "\n".join([_HEADING, *(f"  manage.py {command}" for command in commands)])
    parser.formatter_class = _Formatter
