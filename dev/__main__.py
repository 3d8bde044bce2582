"""`python -m dev run`: what `make run` calls."""

import sys

from dev.run import RunPlan, run

if __name__ == "__main__":
    if sys.argv[1:] != ["run"]:
        sys.exit("usage: python -m dev run")
    sys.exit(run(RunPlan()))
