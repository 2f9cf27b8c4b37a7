"""A PostgreSQL server of the tests' own: durable as in production (fsync on), started from what the machine has."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

USER = "farebox"


def find_binaries() -> Path | None:
    """Where initdb and postgres are: on the PATH, or where Debian puts them; None if nowhere."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    return versions[0].parent if versions else None


class PostgresServer:
    """One server on a free port of loopback, its data under a temporary directory."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        # Not under pytest's own directory, which only its user may enter: PostgreSQL refuses to run as root.
        self.data = Path(tempfile.mkdtemp(prefix="farebox-pg-"))
        if getpass.getuser() == "root":
            shutil.chown(self.data, "postgres")
        self._run("initdb", "-D", str(self.data / "data"), "-A", "trust", "-U", USER, "--locale=C", "-E", "UTF8")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._databases = 0
        self.start()

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        options = f"-p {self.port} -k {self.data} -c listen_addresses=127.0.0.1 -c max_connections=200"
        self._run("pg_ctl", "-D", str(self.data / "data"), "-w", "-l", str(self.data / "log"), "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast` cuts connections, `immediate` is as good as a crash."""
        self._run("pg_ctl", "-D", str(self.data / "data"), "-w", "-m", mode, "stop")

    def kill_backends(self) -> None:
        """Cut every connection but this one."""
        self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname <> ''"
        )

    def new_database(self) -> str:
        """Create an empty database; its SQLAlchemy URL."""
        self._databases += 1
        name = f"farebox_{self._databases}"
        self.sql(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{name}"

    def sql(self, statement: str) -> None:
        """Run one statement as the superuser."""
        import psycopg

        with psycopg.connect(f"host=127.0.0.1 port={self.port} user={USER} dbname=postgres", autocommit=True) as link:
            link.execute(statement.encode())

    def close(self) -> None:
        """Stop the server and remove its data."""
        pid_file = self.data / "data/postmaster.pid"
        if pid_file.exists():
            os.kill(int(pid_file.read_text(encoding="ascii").splitlines()[0]), signal.SIGQUIT)
        shutil.rmtree(self.data, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        as_postgres = ["runuser", "-u", "postgres", "--"] if getpass.getuser() == "root" else []
        # pg_ctl leaves the server behind, which would keep a pipe open.
        with open(os.devnull, "w", encoding="ascii") as nowhere:
            subprocess.run(
                [*as_postgres, str(self._binaries / program), *arguments],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=nowhere,
                stderr=nowhere,
                timeout=120,
                check=True,
            )
