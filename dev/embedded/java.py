"""Java, and the jars of Apache Kafka that Maven fetches."""

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dev.guardian import ROOT

POM = ROOT / "dev" / "kafka" / "pom.xml"
OLDEST_JAVA = 17


class KafkaUnavailableError(Exception):
    """Apache Kafka cannot run on this machine; the text says why."""


@dataclass(frozen=True)
class KafkaProgram:
    """What Apache Kafka runs with. `fetch` is the command that fills `jars`; None where they are there."""

    java: Path
    jars: Path
    fetch: tuple[str, ...] | None


def find_kafka(libs: Path) -> KafkaProgram:
    """Look for Java and for the jars below `libs`, or for Maven to fetch them.

    KafkaUnavailableError where one of them is missing.
    """
    java = _find_java()
    # Named after what they were fetched by: another version is another folder.
    jars = libs / hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    if jars.exists():
        return KafkaProgram(java, jars, fetch=None)
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailableError("there is no `mvn` in PATH to fetch it with")
    return KafkaProgram(java, jars, fetch=(maven, "-q", "-B", "-ntp", "-f", str(POM)))


def _find_java() -> Path:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        raise KafkaUnavailableError(f"there is no `java` in {'JAVA_HOME' if home else 'PATH'}")
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(\d+)', answer.stderr)
    if answer.returncode or version is None:
        raise KafkaUnavailableError(f"{java} does not work")
    if int(version[1]) < OLDEST_JAVA:
        raise KafkaUnavailableError(f"{java} is older than Java {OLDEST_JAVA}")
    return Path(java)
