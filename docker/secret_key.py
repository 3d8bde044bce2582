"""Put the key that Django signs with into the file SECRET_KEY_FILE, before anything else starts.

SECRET_KEY, where given, is written as it is. Else a key is made once, and kept from then on.
"""

import os
import secrets
import tempfile
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path`, readable by this user alone; who reads sees the old text or the new one."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)


def main() -> None:
    """Write the key where it is given or where there is none yet."""
    path = Path(os.environ["SECRET_KEY_FILE"])
    given = os.environ.get("SECRET_KEY", "").strip()
    if given or not path.exists():
        write_whole(path, given or secrets.token_urlsafe(50))


if __name__ == "__main__":
    main()
