package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// startNginx runs nginx as a plain local proxy to each of the addresses, on a port
// each, with kept-alive connections and without a log: as fast as it goes.
func (b *bench) startNginx(ctx context.Context, addrs ...string) ([]subject, error) {
	program, err := exec.LookPath("nginx")
	if err != nil {
		return nil, errors.New("it is not installed")
	}
	dir := filepath.Join(b.dir, "nginx")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var out []subject
	var conf strings.Builder
	if os.Geteuid() == 0 {
		fmt.Fprintln(&conf, "user root;") // the directory is ours alone
	}
	fmt.Fprintf(&conf, "daemon off; worker_processes auto; pid %s/pid; error_log stderr warn;\n", dir)
	fmt.Fprintf(&conf, "events { worker_connections 1024; }\nhttp {\n\taccess_log off; keepalive_requests 1000000000; proxy_max_temp_file_size 0;\n")
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&conf, "\t%s_temp_path %s/%s;\n", kind, dir, kind)
	}
	for i, addr := range addrs {
		port, err := b.port()
		if err != nil {
			return nil, err
		}
		at := "127.0.0.1:" + port
		fmt.Fprintf(&conf, "\tupstream w%d { server %s; keepalive 64; keepalive_requests 1000000000; }\n", i, addr)
		fmt.Fprintf(&conf, "\tserver { listen %s; location / { proxy_pass http://w%d; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; } }\n", at, i)
		out = append(out, subject{who: nginx, target: target{at, "nginx.localhost"}})
	}
	fmt.Fprintln(&conf, "}")
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf.String()), 0o600); err != nil {
		return nil, err
	}
	p, err := b.start("nginx", exec.Command(program, "-p", dir, "-c", file, "-e", "stderr"))
	if err != nil {
		return nil, err
	}
	for i := range out {
		out[i].through = []worker{{nginx, p.pid()}}
		up := eventually(ctx, 5*time.Second, func() error { return once(ctx, out[i].target, "/") })
		if up != nil {
			return nil, fmt.Errorf("%s does not answer: %w", p.name, up)
		}
	}
	return out, nil
}
