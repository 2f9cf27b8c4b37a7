#!/bin/sh
# Makes the secrets of docker-compose.yml, one file each, and keeps those that are there. Run it before the first start:
#     deploy/make-secrets.sh
# The directory has the permissions 0700. The files are 0444, because a container gets the file itself, with its owner and
# its permissions, and runs as another user than you: what keeps others out is the directory.
set -eu
directory="${1:-$(dirname "$0")/secrets}"
umask 077
mkdir -p "$directory"
chmod 0700 "$directory"
cd "$directory"

random_hex() { od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }
# keep NAME: write standard input to a file, unless it is there already.
keep() {
    [ -e "$1" ] || { cat > "$1.new" && chmod 0444 "$1.new" && mv "$1.new" "$1"; }
}

# The database: its owner, and the three roles of roles.sql.
for role in superuser migrate write read; do random_hex 32 | keep "postgres_${role}_password"; done
random_hex 32 | keep grafana_password
# Keys of Farebox, one a component. docker-compose.yml says which scope each has.
for component in otelcol alertmanager prometheus; do
    printf 'fbx_%s_%s' "$(random_hex 8)" "$(random_hex 32)" | keep "${component}_key"
done
# What applications show to the OpenTelemetry Collector in front.
random_hex 32 | keep application_token
# What encrypts the secrets in the books: FAREBOX_SECRETS_KEY. Keep a copy of it apart from backups of the books.
head -c 32 /dev/urandom | base64 | tr "+/" "-_" | tr -d "\n" | keep secrets_key
# The on-call service and the chat: put your own in here.
printf '' | keep pagerduty_key
printf '' | keep slack_url
