#!/usr/bin/env bash
# Starts or stops one PostgreSQL and one Redis for the tests: free ports, private data directories, passwords of their own.
#
#   eval "$(tests/servers.sh start)"    installs what is missing, starts both, prints the two variables that the tests read
#   tests/servers.sh stop               stops both and removes their data; does nothing when nothing runs
#
# The data lie in target/servers, or in the directory for temporary files when the user `postgres` cannot enter target/.
set -euo pipefail
cd "$(dirname "$0")/.."
state=target/servers/state

say() { printf 'servers: %s\n' "$*" >&2; }

find_initdb() { ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | sort -V | tail -n 1; }

# Installs the two packages without letting them start services.
install_missing() {
  local missing=()
  if [ -z "$(find_initdb)" ] && ! command -v initdb >/dev/null; then missing+=(postgresql); fi
  if ! command -v redis-server >/dev/null; then missing+=(redis-server); fi
  if [ ${#missing[@]} -eq 0 ]; then return; fi
  local as_root=()
  if [ "$(id -u)" != 0 ]; then as_root=(sudo -n); fi
  say "installing ${missing[*]}"
  local policy=/usr/sbin/policy-rc.d made=no
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
    "${as_root[@]}" chmod +x $policy
    made=yes
  fi
  local code=0
  {
    "${as_root[@]}" apt-get update -q &&
      "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
  } >&2 || code=$?
  if [ $made = yes ]; then "${as_root[@]}" rm -f $policy; fi
  if [ $code != 0 ]; then
    say "cannot install ${missing[*]}: install them by hand"
    return $code
  fi
}

# PostgreSQL refuses to run as root: then it runs as the user that its package made.
as_postgres() {
  if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

secret() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

port() { echo $((20000 + (RANDOM * 32768 + RANDOM) % 12000)); }

# Makes a directory that the server's user owns and can reach.
directory() {
  local name=$1 owner=$2 place=target/servers/$1
  mkdir -p "$place"
  if [ "$(id -u)" = 0 ] && [ "$owner" != root ] && ! runuser -u "$owner" -- test -x "$place"; then
    rmdir "$place"
    place=$(mktemp -d "${TMPDIR:-/tmp}/lastmile-$name.XXXXXX")
  fi
  place=$(cd "$place" && pwd)
  if [ "$(id -u)" = 0 ] && [ "$owner" != root ]; then chown "$owner" "$place"; fi
  chmod 700 "$place"
  echo "$place"
}

start_postgres() {
  local bin dir password port try
  bin=$(dirname "$(find_initdb || true)")
  if [ "$bin" = . ]; then bin=$(dirname "$(command -v initdb)"); fi
  dir=$(directory postgres postgres)
  printf 'pg_bin=%q\npg_dir=%q\n' "$bin" "$dir" >>$state
  password=$(secret)
  as_postgres sh -c 'umask 077; printf %s "$1" >"$2/password"' - "$password" "$dir"
  # Not synced: these data outlive a killed process, and need not outlive the machine.
  as_postgres "$bin/initdb" -D "$dir/data" -U postgres -A scram-sha-256 --pwfile="$dir/password" -E UTF8 --no-locale -N \
    >"$PWD/target/servers/initdb.log" 2>&1
  for try in 1 2 3 4 5 6 7 8; do
    port=$(port)
    if as_postgres "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -s -w -t 30 -o "-p $port -c listen_addresses=127.0.0.1 \
      -c unix_socket_directories='' -c max_connections=800 -c shared_buffers=64MB -c fsync=off -c full_page_writes=off \
      -c autovacuum_naptime=10s" start >&2; then
      echo "export TEST_POSTGRES_URL=postgres://postgres:$password@127.0.0.1:$port/postgres"
      return
    fi
    say "PostgreSQL does not start on port $port, try $try"
  done
  as_postgres tail -n 20 "$dir/log" >&2 || true
  return 1
}

start_redis() {
  local dir password port try wait
  dir=$(directory redis root)
  printf 'redis_dir=%q\n' "$dir" >>$state
  password=$(secret)
  for try in 1 2 3 4 5 6 7 8; do
    port=$(port)
    printf '%s\n' "port $port" "bind 127.0.0.1" "requirepass $password" 'save ""' "appendonly no" "dir $dir" \
      "daemonize yes" "pidfile $dir/pid" "logfile $dir/log" >"$dir/conf"
    redis-server "$dir/conf" >&2 || true
    for wait in $(seq 50); do
      if REDISCLI_AUTH=$password redis-cli -p "$port" ping 2>/dev/null | grep -q PONG; then
        echo "export TEST_REDIS_URL=redis://:$password@127.0.0.1:$port/"
        return
      fi
      sleep 0.1
    done
    say "Redis does not start on port $port, try $try"
  done
  tail -n 20 "$dir/log" >&2 || true
  return 1
}

stop() {
  if [ ! -e $state ]; then return; fi
  local pg_bin='' pg_dir='' redis_dir='' pid wait
  # shellcheck disable=SC1090
  . $state
  if [ -n "$pg_dir" ] && [ -e "$pg_dir/data/postmaster.pid" ]; then
    as_postgres "$pg_bin/pg_ctl" -D "$pg_dir/data" -s -m immediate -w stop >&2 || true
  fi
  if [ -n "$redis_dir" ] && [ -e "$redis_dir/pid" ]; then
    pid=$(cat "$redis_dir/pid")
    kill "$pid" 2>/dev/null || true
    for wait in $(seq 100); do
      if ! kill -0 "$pid" 2>/dev/null; then break; fi
      sleep 0.1
    done
  fi
  rm -rf ${pg_dir:+"$pg_dir"} ${redis_dir:+"$redis_dir"} target/servers
}

case "${1:-}" in
  start)
    # The caller evaluates what is printed, and would take silence for success.
    trap 'code=$?; if [ $code != 0 ]; then stop || true; echo "(exit $code)"; fi' EXIT
    stop
    mkdir -p target/servers
    : >$state
    install_missing
    start_postgres
    start_redis
    ;;
  stop) stop ;;
  *)
    say "usage: tests/servers.sh start|stop"
    exit 64
    ;;
esac
