// Pushes with client_golang over TLS with a client certificate and a password. Usage: tls HOST:PORT CA CERTIFICATE KEY USER PASSWORD
package main

import (
	"crypto/tls"
	"crypto/x509"
	"log"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/push"
)

func must(what string, err error) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}

func main() {
	authority, err := os.ReadFile(os.Args[2])
	must("read the authority", err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		log.Fatal("no authority")
	}
	certificate, err := tls.LoadX509KeyPair(os.Args[3], os.Args[4])
	must("load the certificate", err)
	config := &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{certificate}}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}

	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "from_client_golang", Help: "Pushed over TLS."})
	gauge.Set(1)
	pusher := push.New("https://"+os.Args[1], "go").Client(client).BasicAuth(os.Args[5], os.Args[6]).Collector(gauge)
	must("push", pusher.Push())
	must("add", pusher.Add())
}
