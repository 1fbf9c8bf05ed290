#!/usr/bin/env bash
# A database and two roles for each service: <service>_owner owns and migrates it, <service>_app works in it and owns nothing.
# Passwords come from <SERVICE>_OWNER_PASSWORD and <SERVICE>_APP_PASSWORD. Run again, it renews the passwords and no more.
# The official image runs this once, on an empty volume; elsewhere run it as a superuser, psql's PG… variables set.
set -euo pipefail

services=(intake workflow finance housing audit)

refuse_placeholders() {
  local variable wrong=()
  for variable in "$@"; do
    case ${!variable:-CHANGE_ME} in *CHANGE_ME*) wrong+=("$variable") ;; esac
  done
  [ "${#wrong[@]}" = 0 ] || { echo "unset or still a placeholder: ${wrong[*]}" >&2; exit 78; }
}

provision() {  # service
  SERVICE=$1 psql -X -q -v ON_ERROR_STOP=1 --dbname "${POSTGRES_DB:-postgres}" <<'SQL'
\getenv service SERVICE
SELECT upper(:'service') || '_OWNER_PASSWORD' AS owner_variable, upper(:'service') || '_APP_PASSWORD' AS app_variable,
       :'service' || '_owner' AS owner, :'service' || '_app' AS app \gset
\getenv owner_password :owner_variable
\getenv app_password :app_variable
SELECT format('CREATE ROLE %I', role) FROM unnest(ARRAY[:'owner', :'app']) AS role
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec
ALTER ROLE :"owner" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'owner_password';
ALTER ROLE :"app" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'app_password';
SELECT format('CREATE DATABASE %I OWNER %I', :'service', :'owner')
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'service') \gexec
REVOKE ALL ON DATABASE :"service" FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE :"service" TO :"app";  -- temporary tables: a rebuild's list of ids
\connect :"service"
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO :"app";
SQL
}

if [ -n "${POSTGRES_USER:-}" ]; then export PGUSER=$POSTGRES_USER; fi
variables=()
for service in "${services[@]}"; do variables+=("${service^^}_OWNER_PASSWORD" "${service^^}_APP_PASSWORD"); done
refuse_placeholders "${variables[@]}"
for service in "${services[@]}"; do provision "$service"; done
