#!/usr/bin/env bash
# Client programs push and scrape over TLS, with client certificates and a password: curl, openssl, Python requests, client_golang and
# Prometheus.
#
#   tests/tls_clients/run.sh TOOLS COMMAND...
#
# COMMAND starts sluicegate, with an address and a configuration added. TOOLS is a folder: Python finds requests in TOOLS/python, and
# the program for client_golang is built there if Go is installed. Prometheus is $SLUICEGATE_TEST_PROMETHEUS, or the one on the PATH.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=$(realpath "$1")
shift
work=$(mktemp -d)
pids=()
cleanup() {
    local status=$?
    ((${#pids[@]})) && kill "${pids[@]}" 2> /dev/null
    wait || true
    ((status)) && tail -n 40 "$work"/*.log
    rm -rf -- "$work"
    exit $status
}
trap cleanup EXIT

fail() {
    echo "FAILED: $*"
    exit 1
}
# Prints a free port.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
# Retries a command for 30 seconds.
eventually() {
    local end=$((SECONDS + 30))
    until "$@"; do
        ((SECONDS < end)) || fail "no success within 30 s: $*"
        sleep 0.2
    done
}

# certificate NAME EXTENSIONS: a certificate of the authority
certificate() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
        -keyout "$work/$1.key" -out "$work/$1.csr" 2> /dev/null
    openssl x509 -req -in "$work/$1.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -CAcreateserial -days 2 \
        -extfile <(printf '%s\n' "$2") -out "$work/$1.crt" 2> /dev/null
}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=authority -days 2 \
    -addext 'keyUsage=critical,keyCertSign' -keyout "$work/ca.key" -out "$work/ca.crt" 2> /dev/null
certificate server $'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth'
certificate client $'subjectAltName=DNS:jobs\nextendedKeyUsage=clientAuth'
user=jobs
password=abcdefghijklmnopqrstuvwxyz
cat > "$work/web.yml" << 'YAML'
tls_server_config:
  cert_file: server.crt
  key_file: server.key
  client_ca_file: ca.crt
  client_auth_type: RequireAndVerifyClientCert
  client_allowed_sans: [jobs]
basic_auth_users:
  jobs: $2a$06$.rCVZVOThsIa97pEDOxvGuRRgzG64bvtJ0938xuqzv18d3ZpQhstC
YAML

port=$(free_port)
"$@" "--web.listen-address=127.0.0.1:$port" "--web.config.file=$work/web.yml" > "$work/sluicegate.log" 2>&1 &
pids+=($!)
address=127.0.0.1:$port
certified=(--cacert "$work/ca.crt" --cert "$work/client.crt" --key "$work/client.key")
identity=("${certified[@]}" --user "$user:$password")
eventually curl -sSfo /dev/null "${identity[@]}" "https://$address/-/ready"

echo "curl"
for version in 1.2 1.3; do
    echo "from_curl $version" | curl -sSf "${identity[@]}" "--tlsv$version" --tls-max "$version" --data-binary @- \
        "https://$address/metrics/job/curl/version/$version"
done
if curl -sSf --cacert "$work/ca.crt" --user "$user:$password" -o /dev/null "https://$address/-/ready" 2> /dev/null; then
    fail "a client without a certificate is accepted"
fi
for wrong in "" "--user $user:wrong" "--user other:$password"; do
    read -ra words <<< "$wrong"
    status=$(curl -sS "${certified[@]}" "${words[@]}" -o /dev/null -w '%{http_code}' "https://$address/-/ready")
    [[ $status == 401 ]] || fail "a client with '$wrong' gets $status"
done
plain=$(curl -s "http://$address/-/ready" --http0.9 || true)
[[ $plain == *"Client sent an HTTP request to an HTTPS server."* ]] || fail "plain HTTP: $plain"

echo "openssl s_client"
s_client() { # s_client FLAGS...: sends one request
    printf 'GET /-/healthy HTTP/1.1\r\nHost: a\r\nAuthorization: Basic %s\r\nConnection: close\r\n\r\n' \
        "$(printf %s "$user:$password" | base64 -w 0)" |
        timeout 20 openssl s_client -connect "$address" -CAfile "$work/ca.crt" -cert "$work/client.crt" \
            -key "$work/client.key" -verify_return_error -ign_eof "$@" 2>&1
}
for flags in -tls1_2 -tls1_3 "-tls1_3 -groups P-521" "-tls1_2 -groups P-256" "-tls1_3 -groups P-384" \
    "-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256" "-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384"; do
    read -ra words <<< "$flags"
    output=$(s_client "${words[@]}") || fail "openssl s_client $flags: $output"
    grep -q 'HTTP/1.1 200' <<< "$output" || fail "openssl s_client $flags: $output"
    output=$(s_client "${words[@]}" -sess_out "$work/session") || fail "openssl s_client $flags: $output"
    output=$(s_client "${words[@]}" -sess_in "$work/session") || fail "openssl s_client $flags: $output"
    grep -q '^Reused, ' <<< "$output" || fail "the session is not resumed, $flags: $output"
done
for flags in -tls1_1 "-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA"; do
    read -ra words <<< "$flags"
    if output=$(s_client "${words[@]}") && grep -q 'HTTP/1.1 200' <<< "$output"; then
        fail "openssl s_client $flags is accepted"
    fi
done

echo "Python requests"
PYTHONPATH="$tools/python" python3 - "$address" "$work" "$user" "$password" << 'PYTHON'
import sys
import requests

address, work, *identity = sys.argv[1:]
session = requests.Session()
session.trust_env = False  # a bundle in the environment would replace the authority
session.verify = f"{work}/ca.crt"
session.auth = tuple(identity)
session.cert = (f"{work}/client.crt", f"{work}/client.key")
for value in range(3):
    response = session.put(f"https://{address}/metrics/job/requests", data=f"from_requests {value}\n")
    assert response.status_code == 200, response.text
text = session.get(f"https://{address}/metrics").text
assert 'from_requests{instance="",job="requests"} 2\n' in text, text[-2000:]
PYTHON

if command -v go > /dev/null; then
    echo "client_golang"
    go -C tests/conformance/clients/go_client build -o "$tools/tls_go_client" ./tls
    "$tools/tls_go_client" "$address" "$work/ca.crt" "$work/client.crt" "$work/client.key" "$user" "$password"
    curl -sSf "${identity[@]}" "https://$address/metrics" | grep '^from_client_golang{.*} 1$' > /dev/null || fail "client_golang"
else
    echo "SKIPPED client_golang over TLS: Go is not installed"
fi

echo "Prometheus"
prometheus_port=$(free_port)
cat > "$work/prometheus.yml" << YAML
global: {scrape_interval: 1s}
scrape_configs:
  - job_name: gateway
    scheme: https
    honor_labels: true
    basic_auth: {username: $user, password: $password}
    tls_config: {ca_file: ca.crt, cert_file: client.crt, key_file: client.key}
    static_configs: [{targets: ["$address"]}]
YAML
"${SLUICEGATE_TEST_PROMETHEUS:-prometheus}" "--config.file=$work/prometheus.yml" "--storage.tsdb.path=$work/tsdb" \
    "--web.listen-address=127.0.0.1:$prometheus_port" > "$work/prometheus.log" 2>&1 &
pids+=($!)
scraped() {
    curl -s "http://127.0.0.1:$prometheus_port/api/v1/query?query=from_requests" | grep '"value":\[[0-9.]*,"2"\]' > /dev/null
}
eventually scraped
echo "all clients work over TLS"
