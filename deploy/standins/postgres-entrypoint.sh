#!/bin/bash
# First start: makes the cluster with POSTGRES_PASSWORD and runs /docker-entrypoint-initdb.d/*.{sh,sql}. Then serves.
set -euo pipefail
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?is not set}"
    initdb -D "$PGDATA" --username=postgres --pwfile=<(printf '%s' "$POSTGRES_PASSWORD") --auth-host=scram-sha-256 --auth-local=trust >/dev/null
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start >/dev/null
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
        *.sh) bash "$file" ;;
        *.sql) psql -v ON_ERROR_STOP=1 --username postgres -f "$file" >/dev/null ;;
        esac
    done
    pg_ctl -D "$PGDATA" -m fast -w stop >/dev/null
fi
exec "$@" -D "$PGDATA" -c listen_addresses='*'
