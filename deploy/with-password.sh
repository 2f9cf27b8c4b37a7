#!/bin/sh
# with-password.sh SECRET COMMAND…: run a command that finds a password of PostgreSQL in PGPASSWORD. PostgreSQL's clients
# refuse a password file that others may read, and a secret of a container is one.
set -eu
PGPASSWORD="$(cat "/run/secrets/$1")"
export PGPASSWORD
shift
exec "$@"
