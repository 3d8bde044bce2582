"""The version is told by the package, and by nothing else on its own."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import django
import pytest
from django.conf import settings
from rest_framework.test import APIClient

from marketdata import __version__

ROOT = Path(settings.BASE_DIR)


@pytest.mark.parametrize("options", ["--version", "version", "quota --version", "check --version"])
def test_command_line_tells_it_without_any_setting(options: str) -> None:
    variables = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
    command = [sys.executable, "manage.py", *options.split()]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout == f"marketdata {__version__} (Django {django.get_version()})\n"


def test_openapi_tells_it(api: APIClient) -> None:
    accept = {"accept": "application/vnd.oai.openapi+json"}
    assert api.get("/api/schema", headers=accept).json()["info"]["version"] == __version__


def test_project_has_it_from_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "marketdata.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
