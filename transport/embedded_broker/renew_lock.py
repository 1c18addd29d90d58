"""Writes the committed list of jars anew: `python -m transport.embedded_broker.renew_lock`.

For maintainers, when Kafka's version changes. Resolves the run-time dependencies of the broker
with jgo, downloads every jar and writes its sum. Review the difference before committing it.
"""

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jgo
from jgo.maven import MavenContext

from transport.embedded_broker.jars import KAFKA_VERSION, LOCK_PATH, sha256_of

# Kafka's published dependencies end at the logging interface (slf4j 1.7): without a binding the
# broker logs nothing. Its own distribution adds this one, at the version of log4j-core.
_LOG_BINDING = "org.apache.logging.log4j", "log4j-slf4j-impl"


def main() -> int:
    """Resolve, download, write the list."""
    artifacts = jgo.resolve(f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}")
    log4j_version = next(a.version for a in artifacts if a.artifactId == "log4j-core")
    with tempfile.TemporaryDirectory() as folder:
        context = MavenContext(repo_cache=Path(folder))
        wanted = [
            context.project(group, artifact).at_version(version).artifact()
            for group, artifact, version in [
                *((a.groupId, a.artifactId, a.version) for a in artifacts),
                (*_LOG_BINDING, log4j_version),
            ]
        ]
        with ThreadPoolExecutor(8) as pool:
            paths = sorted(pool.map(lambda artifact: artifact.resolve(), wanted))
        lines = [f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths]
    LOCK_PATH.write_text("".join(lines))
    sys.stdout.write(f"{len(lines)} jars in {LOCK_PATH}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
