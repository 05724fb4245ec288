#!/usr/bin/env bash
# Measures what TLS costs: pushes to sluicegate over plain HTTP and over TLS, and the same requests to nginx, which only says "200".
#
#   cargo build --release && loadtest/tls.sh [SECONDS]
#
# Needs wrk, nginx, openssl and curl. Both servers have one process with one thread on core 0, the clients are on core 1, so the machine
# should have two idle cores. Certificate: ECDSA P-256; suite: TLS_AES_128_GCM_SHA256. Prints requests per second, and the processor time
# of the server per request in microseconds.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-5}
work=$(mktemp -d)
pids=()
cleanup() {
    ((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -days 2 \
    -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
# X25519 in both: nginx's OpenSSL may not know the hybrid with ML-KEM.
cat > "$work/web-x25519.yml" <<YAML
tls_server_config: {cert_file: cert.pem, key_file: key.pem, curve_preferences: [X25519]}
YAML
cat > "$work/nginx.conf" <<CONF
daemon off; master_process off; pid $work/nginx.pid; error_log $work/nginx.log;
events { worker_connections 1024; }
http {
    access_log off; keepalive_requests 1000000000; client_body_temp_path $work/body;
    ssl_certificate $work/cert.pem; ssl_certificate_key $work/key.pem;
    ssl_protocols TLSv1.3; ssl_ecdh_curve X25519; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    ssl_session_tickets on;
    server { listen 127.0.0.1:19301; location / { return 200; } }
    server { listen 127.0.0.1:19302 ssl; location / { return 200; } }
}
CONF
cat > "$work/push.lua" <<'LUA'
wrk.method = "PUT"
wrk.path = "/metrics/job/tls"
local lines = {}
for i = 1, 20 do lines[i] = 'metric_' .. i .. '{label="value"} ' .. i .. '\n' end
wrk.body = table.concat(lines)
LUA

start() { # start COMMAND...: on core 0
    taskset -c 0 "$@" > "$work/log" 2>&1 &
    pids+=($!)
    server=$!
}
ready() { # ready URL
    for _ in {1..100}; do
        curl -sko /dev/null "$1" && return
        sleep 0.1
    done
    cat "$work/log"
    exit 1
}
cpu() { awk '{print ($14 + $15)}' "/proc/$server/stat"; } # in hundredths of a second
row() { # row NAME COMMAND...: runs a client that prints the number of requests
    local name=$1 before after count
    shift
    before=$(cpu)
    count=$("$@")
    after=$(cpu)
    awk -v name="$name" -v count="$count" -v seconds="$seconds" -v cpu="$((after - before))" \
        'BEGIN {printf "| %s | %.0f | %.1f |\n", name, count / seconds, cpu * 10000 / count}'
}
wrk_count() { # wrk_count URL [WRK-FLAGS...]
    local url=$1
    shift
    taskset -c 1 wrk -t1 -c16 "-d${seconds}s" -s "$work/push.lua" "$@" "$url" |
        awk '/requests in/ {print $1} /Non-2xx|Socket errors/ {print > "/dev/stderr"}'
}
handshakes() { # handshakes HOST:PORT new|reuse: full or resumed handshakes, each with a GET
    taskset -c 1 openssl s_time -connect "$1" "-$2" -time "$seconds" -www /-/ready 2>/dev/null |
        awk '/connections in .* real seconds/ {print $1}'
}
sluicegate() { # sluicegate PORT [FLAGS...]
    local port=$1
    shift
    start "${SLUICEGATE:-target/release/sluicegate}" "--web.listen-address=127.0.0.1:$port" --runtime.cores=1 --persistence.file= "$@"
}

echo "| | requests/s | µs of the server's core |"
echo "|---|---|---|"
sluicegate 19303
ready http://127.0.0.1:19303/-/ready
row "sluicegate, plain, kept alive" wrk_count http://127.0.0.1:19303
row "sluicegate, plain, one connection each" wrk_count http://127.0.0.1:19303 -H 'Connection: close'
kill "$server"
sluicegate 19304 "--web.config.file=$work/web-x25519.yml"
ready https://127.0.0.1:19304/-/ready
row "sluicegate, TLS, kept alive" wrk_count https://127.0.0.1:19304
row "sluicegate, TLS, one handshake each" wrk_count https://127.0.0.1:19304 -H 'Connection: close'
row "sluicegate, TLS, GET, full handshake each" handshakes 127.0.0.1:19304 new
row "sluicegate, TLS, GET, resumed each" handshakes 127.0.0.1:19304 reuse
kill "$server"
start nginx -c "$work/nginx.conf"
ready http://127.0.0.1:19301/
row "nginx, plain, kept alive" wrk_count http://127.0.0.1:19301
row "nginx, plain, one connection each" wrk_count http://127.0.0.1:19301 -H 'Connection: close'
row "nginx, TLS, kept alive" wrk_count https://127.0.0.1:19302
row "nginx, TLS, one handshake each" wrk_count https://127.0.0.1:19302 -H 'Connection: close'
row "nginx, TLS, GET, full handshake each" handshakes 127.0.0.1:19302 new
row "nginx, TLS, GET, resumed each" handshakes 127.0.0.1:19302 reuse
