-- PostgreSQL roles for Farebox: one that migrates, one that writes, one that only reads. Run it once as a superuser, in
-- the database of the books and before the first collector starts:
--     psql -d farebox -v ON_ERROR_STOP=1 -f deploy/roles.sql
-- Then ALTER ROLE farebox_write PASSWORD '…', and so for each. It can be run again: that changes nothing.

DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'farebox_migrate') THEN CREATE ROLE farebox_migrate LOGIN; END IF;
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'farebox_write') THEN CREATE ROLE farebox_write LOGIN; END IF;
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'farebox_read') THEN CREATE ROLE farebox_read LOGIN; END IF;
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO farebox_migrate;
GRANT USAGE ON SCHEMA public TO farebox_write, farebox_read;

-- Tables that a migration makes later.
ALTER DEFAULT PRIVILEGES FOR ROLE farebox_migrate IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO farebox_write;
ALTER DEFAULT PRIVILEGES FOR ROLE farebox_migrate IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO farebox_write;
ALTER DEFAULT PRIVILEGES FOR ROLE farebox_migrate IN SCHEMA public GRANT SELECT ON TABLES TO farebox_read;
