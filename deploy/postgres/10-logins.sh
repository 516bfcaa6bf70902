#!/bin/sh
# Make the fleet's login, once, when the database is made. Tables belong to the owner, who alone migrates: what may add
# to the history may not change it. `billing migrate --roles` then says what billing_fleet may do.
set -eu
password=$(cat "$FLEET_PASSWORD_FILE")
psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set password="$password" <<'SQL'
CREATE ROLE billing_fleet NOLOGIN;
CREATE ROLE fleet LOGIN PASSWORD :'password' IN ROLE billing_fleet;
SQL
