package gateway_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"peercompute/gateway"
	"peercompute/pkg/publish"
)

func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"*.localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// TestTLSAndHTTP2 asks over TLS, with HTTP/1.1 and with HTTP/2: what the workload
// is told, streaming both ways, trailers, and a body that nobody reads.
func TestTLSAndHTTP2(t *testing.T) {
	cert, pool := selfSigned(t)
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/early":
			http.Error(w, "no", http.StatusForbidden)
		case "/echo":
			rc := http.NewResponseController(w)
			_ = rc.EnableFullDuplex()
			w.Header().Set("Trailer", "X-End")
			in := bufio.NewScanner(req.Body)
			for in.Scan() {
				fmt.Fprintln(w, in.Text())
				_ = rc.Flush()
			}
			w.Header().Set("X-End", "done")
		default:
			fmt.Fprintf(w, "%s %s", req.Header.Get("X-Forwarded-Proto"), req.Header.Get("Cookie"))
		}
	}), func(_ *gateway.ProxyConfig, s *gateway.ServerConfig, _ *publish.Config) {
		s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	})
	for _, major := range []int{1, 2} {
		t.Run(fmt.Sprint("HTTP/", major), func(t *testing.T) {
			tr := &http.Transport{DialContext: r.dialGateway, TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: major == 2}
			defer tr.CloseIdleConnections()
			ask := func(method, path string, body io.Reader) *http.Response {
				t.Helper()
				req, _ := http.NewRequest(method, "https://"+r.host+path, body)
				req.Header.Set("Cookie", "a=1; b=2")
				res, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				if res.ProtoMajor != major {
					t.Fatalf("answered with %s", res.Proto)
				}
				t.Cleanup(func() { res.Body.Close() })
				return res
			}
			res := ask("GET", "/", nil)
			if b, err := io.ReadAll(res.Body); string(b) != "https a=1; b=2" || err != nil {
				t.Errorf("got %q, %v", b, err)
			}
			pr, pw := io.Pipe()
			go fmt.Fprintln(pw, "first")
			res = ask("POST", "/echo", pr)
			out := bufio.NewReader(res.Body)
			for _, line := range []string{"first", "second", "third"} {
				if line != "first" {
					fmt.Fprintln(pw, line)
				}
				if got, err := out.ReadString('\n'); got != line+"\n" {
					t.Fatalf("got %q, %v; want %q", got, err, line)
				}
			}
			pw.Close()
			if _, err := io.ReadAll(out); err != nil || res.Trailer.Get("X-End") != "done" {
				t.Errorf("end: %v, trailer %v", err, res.Trailer)
			}
			res = ask("POST", "/early", struct{ io.Reader }{strings.NewReader(strings.Repeat("x", 1<<20))})
			if b, err := io.ReadAll(res.Body); res.StatusCode != 403 || string(b) != "no\n" || err != nil {
				t.Errorf("early answer: %d %q, %v", res.StatusCode, b, err)
			}
			res = ask("GET", "/", nil)
			if res.StatusCode != 200 {
				t.Errorf("afterwards: %d", res.StatusCode)
			}
			_, _ = io.Copy(io.Discard, res.Body)
		})
	}
}
