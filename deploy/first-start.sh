#!/bin/sh
# Makes what nobody may find in a repository, once: passwords and an API key, in a volume that only containers see.
set -eu
umask 022
cd /secrets
random() { python -c 'import secrets; print(secrets.token_urlsafe(32), end="")'; }
[ -s postgres_password ] || random > postgres_password
[ -s grafana_password ] || random > grafana_password
[ -s farebox_key ] || farebox keys generate | tr -d '\n' > farebox_key
printf 'postgres:5432:farebox:farebox:%s\n' "$(cat postgres_password)" > pgpass
# PostgreSQL's clients refuse a password file that others can read.
chown 10001 pgpass && chmod 0600 pgpass
# The on-call service and the chat: put your own in here.
touch pagerduty_key slack_url
# Volumes belong to root at first, and who writes them does not.
chown 10001 /queue /traces
