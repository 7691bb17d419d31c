package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// maxDownload bounds /download: 16 GiB.
const maxDownload = 16 << 30

func routes(name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "hello from %s: %s %s\n", name, r.Method, r.URL.RequestURI())
	})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/upload", upload)
	mux.HandleFunc("/download", download)
	mux.HandleFunc("/exchange", exchange)
	mux.HandleFunc("/events", events)
	mux.HandleFunc("/trailers", trailers)
	mux.HandleFunc("/ws", echo)
	return mux
}

// upload answers {"bytes":N,"sha256":"…"} for the body, which it never holds.
func upload(w http.ResponseWriter, r *http.Request) {
	h := sha256.New()
	n, err := io.Copy(h, r.Body)
	if err != nil {
		http.Error(w, fmt.Sprintf("the body broke off after %d bytes", n), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"bytes": n, "sha256": hex.EncodeToString(h.Sum(nil))})
}

// download streams the number of bytes asked for: "0123456789abcdef" repeated.
func download(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.URL.Query().Get("bytes"), 10, 64)
	if err != nil || n < 0 || n > maxDownload {
		http.Error(w, fmt.Sprintf("bytes must be 0 to %d", int64(maxDownload)), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	chunk := make([]byte, 64<<10)
	for i := range chunk {
		chunk[i] = "0123456789abcdef"[i%16]
	}
	for n > 0 {
		piece := chunk[:min(n, int64(len(chunk)))]
		if _, err := w.Write(piece); err != nil {
			return
		}
		n -= int64(len(piece))
	}
}

// exchange reads the whole body and then streams as download does.
func exchange(w http.ResponseWriter, r *http.Request) {
	if n, err := io.Copy(io.Discard, r.Body); err != nil {
		http.Error(w, fmt.Sprintf("the body broke off after %d bytes", n), http.StatusBadRequest)
		return
	}
	download(w, r)
}

// events sends n (default 10, at most 1000) server-sent events, 100 ms apart.
func events(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.URL.Query().Get("n"))
	if err != nil || n < 1 || n > 1000 {
		n = 10
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := range n {
		fmt.Fprintf(w, "id: %d\ndata: tick %d\n\n", i, i)
		if out.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// trailers sends a body and then two trailers: one announced, one not.
func trailers(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Trailer", "X-Checksum")
	const body = "the trailers follow\n"
	io.WriteString(w, body)
	sum := sha256.Sum256([]byte(body))
	w.Header().Set("X-Checksum", hex.EncodeToString(sum[:]))
	w.Header().Set(http.TrailerPrefix+"X-Unannounced", "yes")
}
