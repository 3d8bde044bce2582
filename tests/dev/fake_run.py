"""Run `dev.run` in the folder given: its Procfile, and `prepare.py` in place of `manage.py prepare`."""

import sys
from pathlib import Path

from dev.run import RunPlan, run

if __name__ == "__main__":
    root = Path(sys.argv[1])
    sys.exit(run(RunPlan(root, procfile=root / "Procfile", prepare=(sys.executable, "prepare.py"))))
