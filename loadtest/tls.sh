#!/usr/bin/env bash
# Measures what TLS costs: pushes to sluicegate over plain HTTP and over TLS, the same to the official program, and the same requests to
# nginx, which only says "200".
#
#   cargo build --release && OFFICIAL=/usr/bin/prometheus-pushgateway loadtest/tls.sh [SECONDS] [ROUNDS]
#
# Without OFFICIAL, the official program is left out. SLUICEGATE is another program than target/release/sluicegate. Needs wrk, nginx, openssl
# and curl. All servers have one thread on core 0, the clients are on core 1, so the machine should have two idle cores. Certificate: ECDSA
# P-256; suite: TLS_AES_128_GCM_SHA256. In each round, every server is measured once. Prints the medians of requests per second and of the
# processor time of the server per request in microseconds, each with the lowest and the highest.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-5}
rounds=${2:-5}
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
        'BEGIN {printf "%s\t%.0f\t%.1f\n", name, count / seconds, cpu * 10000 / count}' | tee -a "$work/figures" >&2
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
# pushgateway NAME PLAIN-PORT TLS-PORT COMMAND...: a program with the flags of the Pushgateway
pushgateway() {
    local name=$1 plain=$2 tls=$3
    shift 3
    start "$@" "--web.listen-address=127.0.0.1:$plain" --persistence.file=
    ready "http://127.0.0.1:$plain/-/ready"
    row "$name, plain, kept alive" wrk_count "http://127.0.0.1:$plain"
    row "$name, plain, one connection each" wrk_count "http://127.0.0.1:$plain" -H 'Connection: close'
    kill "$server"
    start "$@" "--web.listen-address=127.0.0.1:$tls" --persistence.file= "--web.config.file=$work/web-x25519.yml"
    ready "https://127.0.0.1:$tls/-/ready"
    over_tls "$name" "$tls"
    kill "$server"
}
over_tls() { # over_tls NAME PORT
    row "$1, TLS, kept alive" wrk_count "https://127.0.0.1:$2"
    row "$1, TLS, one handshake each" wrk_count "https://127.0.0.1:$2" -H 'Connection: close'
    row "$1, TLS, GET, full handshake each" handshakes "127.0.0.1:$2" new
    row "$1, TLS, GET, resumed each" handshakes "127.0.0.1:$2" reuse
}

for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds" >&2
    pushgateway sluicegate 19303 19304 "${SLUICEGATE:-target/release/sluicegate}" --runtime.cores=1
    if [[ ${OFFICIAL:-} ]]; then
        pushgateway official 19305 19306 "$OFFICIAL"
    fi
    start nginx -c "$work/nginx.conf"
    ready http://127.0.0.1:19301/
    row "nginx, plain, kept alive" wrk_count http://127.0.0.1:19301
    row "nginx, plain, one connection each" wrk_count http://127.0.0.1:19301 -H 'Connection: close'
    over_tls nginx 19302
    kill "$server"
done

echo "| median of $rounds rounds of $seconds s | requests/s | µs of the server's core |"
echo "|---|---|---|"
# Sorts the figures of each row, and keeps the order of the rows.
awk -F '\t' '
    function spread(all, digits,    values, count, i, j, swap) {
        count = split(all, values, " ")
        for (i = 1; i < count; i++)
            for (j = i + 1; j <= count; j++)
                if (values[j] + 0 < values[i] + 0) { swap = values[i]; values[i] = values[j]; values[j] = swap }
        i = (values[int((count + 1) / 2)] + values[int((count + 2) / 2)]) / 2
        return sprintf("%." digits "f (%." digits "f to %." digits "f)", i, values[1], values[count])
    }
    !($1 in rate) { name[++rows] = $1 }
    { rate[$1] = rate[$1] " " $2; cpu[$1] = cpu[$1] " " $3 }
    END { for (i = 1; i <= rows; i++) printf "| %s | %s | %s |\n", name[i], spread(rate[name[i]], 0), spread(cpu[name[i]], 1) }
' "$work/figures"
