"""Write kafka.lock anew: `make lock-kafka`."""

import hashlib
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from jgo.maven import Artifact, MavenContext
from jgo.parse import Coordinate

from dev.embedded.fetch_jars import CONNECTIONS, maven
from dev.embedded.kafka_jars import LOCK, Jar

WANTED = (
    "org.apache.kafka:kafka_2.13:4.3.1",
    # Without a logger of slf4j's 1.7 line Kafka says nothing, not even why it does not start.
    "org.slf4j:slf4j-simple:1.7.36",
)
HEADER = "# The jars of the embedded Apache Kafka, written by `make lock-kafka`.\n"


def lock_jars() -> str:
    """Return the text of the lock: what WANTED names, and all that this needs to run."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(CONNECTIONS) as pool:
        jars = list(pool.map(_lock, _resolve(maven(Path(folder)))))
    return HEADER + "".join(f"{jar}\n" for jar in jars)


def _resolve(maven: MavenContext) -> list[Artifact]:
    wanted = [maven.create_dependency(replace(Coordinate.parse(name), scope="compile")) for name in WANTED]
    asked, needed = maven.resolver.resolve(wanted)
    return [
        dependency.artifact
        for dependency in [*asked, *needed]
        if dependency.scope in ("compile", "runtime") and dependency.artifact.packaging == "jar"
    ]


def _lock(artifact: Artifact) -> Jar:
    digest = hashlib.sha256(artifact.resolve().read_bytes()).hexdigest()
    return Jar(artifact.groupId, artifact.artifactId, artifact.version, digest)


if __name__ == "__main__":
    LOCK.write_text(lock_jars())
