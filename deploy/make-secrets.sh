#!/bin/sh
# Make the secrets of docker-compose.yml, one file each, and keep existing ones. Run it before the first start:
#     deploy/make-secrets.sh
# The directory has the permissions 0700. The files are 0444, because a container gets the file itself, with its owner and
# its permissions, and runs as another user. The directory keeps other users out.
set -eu
directory="${1:-$(dirname "$0")/secrets}"
umask 077
mkdir -p "$directory"
chmod 0700 "$directory"
cd "$directory"

random_hex() { od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }
# keep NAME: write standard input to a file, unless it exists.
keep() {
    [ -e "$1" ] || { cat > "$1.new" && chmod 0444 "$1.new" && mv "$1.new" "$1"; }
}

# The database: its owner, and the three roles of roles.sql.
for role in superuser migrate write read; do random_hex 32 | keep "postgres_${role}_password"; done
random_hex 32 | keep grafana_password
# Keys of Farebox, one for each component. docker-compose.yml gives each its scope.
for component in otelcol alertmanager prometheus; do
    printf 'fbx_%s_%s' "$(random_hex 8)" "$(random_hex 32)" | keep "${component}_key"
done
# The token that applications send to the OpenTelemetry Collector in front.
random_hex 32 | keep application_token
# FAREBOX_SECRETS_KEY encrypts the secrets in the books. Keep a copy of it apart from backups of the books.
head -c 32 /dev/urandom | base64 | tr "+/" "-_" | tr -d "\n" | keep secrets_key
# The on-call service and the chat: put in your own.
printf '' | keep pagerduty_key
printf '' | keep slack_url
