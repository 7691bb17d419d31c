// Hello is a small web server for trying Peer Compute with: one static program,
// put alone in an image built FROM scratch. It uses the standard library only.
//
//	/               who answers, which method and path were asked for
//	/upload         reads the whole body; answers with its size and SHA-256
//	/download?bytes=N streams N bytes
//	/exchange?bytes=N reads the whole body, then streams N bytes
//	/ws             WebSocket: echoes every message
//	/events?n=N     server-sent events, one every 100 ms
//	/trailers       a body followed by HTTP trailers
//	/healthz        204
//
// It ends by itself on SIGTERM, after the requests in flight.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	addr := flag.String("listen", ":8080", "address to listen on")
	name := flag.String("name", "", "name to answer with; empty = the host name")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, *addr, *name); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends, then lets requests in flight finish.
func run(ctx context.Context, addr, name string) error {
	if name == "" {
		name, _ = os.Hostname() // an empty name is an honest answer
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	srv := &http.Server{Handler: routes(name), ReadHeaderTimeout: 10 * time.Second}
	log.Printf("hello from %s: listening on %s", name, l.Addr())
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	log.Print("asked to stop: finishing what is in flight")
	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		return errors.Join(fmt.Errorf("cannot stop politely: %w", err), srv.Close())
	}
	log.Print("bye")
	return nil
}
