-- PostgreSQL roles for Farebox: one that migrates, one that writes, one that only reads. Run it once as a superuser, in
-- the database of the books and before the first collector starts:
--     psql -d farebox -v ON_ERROR_STOP=1 -f deploy/roles.sql
-- Then ALTER ROLE farebox_write PASSWORD '…', and likewise for each role. A second run changes nothing.

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

-- Tables that later migrations make.
ALTER DEFAULT PRIVILEGES FOR ROLE farebox_migrate IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO farebox_write;
ALTER DEFAULT PRIVILEGES FOR ROLE farebox_migrate IN SCHEMA public
    GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO farebox_write;
ALTER DEFAULT PRIVILEGES FOR ROLE farebox_migrate IN SCHEMA public GRANT SELECT ON TABLES TO farebox_read;

-- Books from before these roles existed belong to another role, often a superuser: transfer its tables to farebox_migrate.
DO $$
DECLARE
    found record;
BEGIN
    IF to_regclass('public.alembic_version') IS NULL THEN RETURN; END IF;
    FOR found IN
        SELECT c.oid::regclass AS name FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
            AND c.relowner = (SELECT relowner FROM pg_class WHERE oid = 'public.alembic_version'::regclass)
            AND c.relowner <> 'farebox_migrate'::regrole
        ORDER BY c.relname <> 'alembic_version' DESC
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO farebox_migrate', found.name);
    END LOOP;
    FOR found IN
        SELECT p.oid::regprocedure AS name FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace AND p.prokind = 'f' AND p.proowner <> 'farebox_migrate'::regrole
            AND EXISTS (SELECT 1 FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
                        WHERE t.tgfoid = p.oid AND c.relowner = 'farebox_migrate'::regrole)
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO farebox_migrate', found.name);
    END LOOP;
END
$$;
