#!/usr/bin/env python
"""Run Django's command line for the market data service."""

import os
import sys

from marketdata.command_line import run_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketdata.settings")
    run_command_line(sys.argv)
