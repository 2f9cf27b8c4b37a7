#!/bin/sh
# with-password.sh SECRET COMMAND…: run a command with a password of PostgreSQL in PGPASSWORD. PostgreSQL's clients refuse
# a password file that other users can read, and the file of a container's secret is one.
set -eu
PGPASSWORD="$(cat "/run/secrets/$1")"
export PGPASSWORD
shift
exec "$@"
