-- Give the roles of roles.sql the passwords of the secrets, so that a changed file takes effect at the next start:
--     psql -d farebox -v ON_ERROR_STOP=1 -f deploy/passwords.sql
-- SECRETS in the environment is the directory with the files; by default, that of a container.
\set migrate_password `cat "${SECRETS:-/run/secrets}/postgres_migrate_password"`
\set write_password `cat "${SECRETS:-/run/secrets}/postgres_write_password"`
\set read_password `cat "${SECRETS:-/run/secrets}/postgres_read_password"`
ALTER ROLE farebox_migrate PASSWORD :'migrate_password';
ALTER ROLE farebox_write PASSWORD :'write_password';
ALTER ROLE farebox_read PASSWORD :'read_password';
