// Demo shows the whole idea on one machine: two peers that trust each other in
// one direction, a gateway, a WASM service and, where an engine answers, a
// container, both opened through their public names. It uses the real programs
// from bin/ and nothing else; all it makes is in one temporary directory and gone
// when it ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	once := flag.Bool("once", false, "check everything, then stop")
	bin := flag.String("bin", "bin", "where peerd, peerctl and peergate are")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *once); err != nil {
		fmt.Fprintln(os.Stderr, "demo failed:", err)
		os.Exit(1)
	}
}

// demo is a mesh of three nodes in a directory.
type demo struct {
	bin, dir string
	nodes    []*node
	built    bool // the container image is there, and ours to remove
}

type node struct {
	name, home, addr string
	cmd              *exec.Cmd
	log              *os.File
}

func run(ctx context.Context, bin string, once bool) (err error) {
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "peerdemo")
	if err != nil {
		return err
	}
	d := &demo{bin: bin, dir: dir}
	defer func() {
		if err != nil {
			d.printLogs()
		}
		err = errors.Join(err, d.end())
	}()

	say("1. Three nodes: alice has the laptop, bob lends a machine, gw is the public gateway.")
	public, err := d.start(ctx)
	if err != nil {
		return err
	}
	say("\n2. Trust, one direction at a time.")
	if err := d.pair(ctx); err != nil {
		return err
	}
	say("\n3. Alice deploys on bob.")
	urls, err := d.deploy(ctx)
	if err != nil {
		return err
	}
	say("\n4. Through the gateway, as a browser would:")
	for _, u := range urls {
		if err := get(ctx, public, u); err != nil {
			return err
		}
	}
	say("\n5. A job on bob: text goes in here, counts come out here.")
	if err := d.job(ctx); err != nil {
		return err
	}
	if _, err := d.ctl(ctx, "alice", nil, true, "ps"); err != nil {
		return err
	}
	d.picture(urls)
	if once {
		say("\nEverything answered.")
		return nil
	}
	d.next(urls)
	<-ctx.Done()
	say("\nstopping…")
	return nil
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// start runs the nodes and returns the gateway's public address.
func (d *demo) start(ctx context.Context) (public string, err error) {
	var ports [4]string
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return "", err
		}
	}
	public = "127.0.0.1:" + ports[3]
	tcp := func(i int) string { return "/ip4/127.0.0.1/tcp/" + ports[i] }
	for _, n := range []struct {
		name string
		args []string
	}{
		{"alice", []string{"peerd", "run", "--listen", tcp(0)}},
		{"bob", []string{"peerd", "run", "--listen", tcp(1)}},
		{"gw", []string{"peergate", "run", "--listen", tcp(2), "--domain", "localhost", "--http", public}},
	} {
		home := filepath.Join(d.dir, n.name)
		log, err := os.Create(filepath.Join(d.dir, n.name+".log"))
		if err != nil {
			return "", err
		}
		cmd := exec.Command(filepath.Join(d.bin, n.args[0]), append(n.args[1:], "--home", home)...)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us; we stop the nodes in order
		if err := cmd.Start(); err != nil {
			return "", errors.Join(err, log.Close())
		}
		d.nodes = append(d.nodes, &node{name: n.name, home: home, cmd: cmd, log: log})
	}
	for _, n := range d.nodes {
		if n.addr, err = d.whoami(ctx, n); err != nil {
			return "", err
		}
		say("   %-6s %s", n.name, n.addr)
	}
	return public, nil
}

// freePort finds a TCP port below the range that the system hands out itself.
func freePort() (string, error) {
	for p := 20000 + os.Getpid()%5000; p < 32000; p += 7 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			continue
		}
		defer l.Close()
		if taken[p] {
			continue
		}
		taken[p] = true
		return fmt.Sprint(p), nil
	}
	return "", errors.New("no free port between 20000 and 32000")
}

var taken = map[int]bool{} // ports given out already

func (d *demo) whoami(ctx context.Context, n *node) (string, error) {
	deadline := time.Now().Add(20 * time.Second)
	for {
		out, err := d.ctl(ctx, n.name, nil, false, "whoami", "-o", "json")
		if err == nil {
			var who struct{ Addrs []string }
			if err := decode(out, &who); err != nil || len(who.Addrs) == 0 {
				return "", fmt.Errorf("%s says no address: %s", n.name, out)
			}
			return who.Addrs[0], nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return "", fmt.Errorf("%s does not come up: %w", n.name, err)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (d *demo) node(name string) *node {
	for _, n := range d.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// ctl runs peerctl for a node. What it runs for people to see, it shows.
func (d *demo) ctl(ctx context.Context, who string, stdin io.Reader, show bool, args ...string) (string, error) {
	if show {
		say("   %s$ peerctl %s", who, strings.Join(shorten(args, d.dir), " "))
	}
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "peerctl"), append([]string{"--home", d.node(who).home}, args...)...)
	cmd.Stdin = stdin
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("peerctl %s: %w\n%s", args[0], err, errs.String())
	}
	if show {
		for line := range strings.Lines(out.String()) {
			fmt.Print("     ", line)
		}
	}
	return out.String(), nil
}

// shorten makes arguments readable: files by their base name, IDs cut.
func shorten(args []string, dir string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		a = strings.ReplaceAll(a, dir+"/", "")
		if at := strings.Index(a, "/p2p/"); at >= 0 && len(a) > at+18 {
			a = a[:at+18] + "…"
		}
		out[i] = a
	}
	return out
}

func (d *demo) pair(ctx context.Context) error {
	alice, bob, gw := d.node("alice"), d.node("bob"), d.node("gw")
	for _, c := range [][]string{
		{"alice", "peers", "add", bob.addr, "--name", "bob"},
		{"bob", "peers", "add", alice.addr, "--name", "alice", "--allow", "deploy", "--cpus", "2", "--memory", "1G", "--max-workloads", "10"},
		{"bob", "peers", "add", gw.addr, "--name", "gw", "--allow", "route"},
		{"gw", "peers", "add", bob.addr, "--name", "bob", "--allow", "publish"},
	} {
		say("   %s$ peerctl %s", c[0], strings.Join(shorten(c[1:], d.dir), " "))
		if _, err := d.ctl(ctx, c[0], nil, false, c[1:]...); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) deploy(ctx context.Context) (urls []string, err error) {
	hello, err := d.compile(ctx, "hello-wasm", "hello.wasm")
	if err != nil {
		return nil, err
	}
	out, err := d.ctl(ctx, "alice", nil, true, "deploy", hello, "--peer", "bob", "--name", "hello", "--publish")
	if err != nil {
		return nil, err
	}
	urls = append(urls, strings.TrimSpace(out))
	image, why := d.image(ctx)
	if why != nil {
		say("   (no container: %v; the WASM runtime needs no engine)", why)
		return urls, nil
	}
	out, err = d.ctl(ctx, "alice", nil, true, "deploy", image, "--peer", "bob", "--name", "web", "--port", "8080", "--publish")
	return append(urls, strings.TrimSpace(out)), err
}

// compile builds one of the examples for WASI.
func (d *demo) compile(ctx context.Context, example, file string) (string, error) {
	path := filepath.Join(d.dir, file)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./examples/"+example)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build %s: %w\n%s", example, err, out)
	}
	return path, nil
}

func (d *demo) job(ctx context.Context) error {
	words, err := d.compile(ctx, "wordcount", "wordcount.wasm")
	if err != nil {
		return err
	}
	_, err = d.ctl(ctx, "alice", strings.NewReader("to be or not to be\n"), true, "run", words, "--peer", "bob")
	return err
}

// get opens a public URL. Names under .localhost are this machine wherever they
// are resolved; here they are dialled without asking.
func get(ctx context.Context, public, url string) error {
	var d net.Dialer
	c := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.DialContext(ctx, network, public)
		},
	}}
	defer c.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err
	}
	start := time.Now()
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	say("   GET %s → %s, %d bytes in %s", url, resp.Status, len(body), time.Since(start).Round(100*time.Microsecond))
	if resp.StatusCode != http.StatusOK || len(body) == 0 {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return nil
}

func (d *demo) picture(urls []string) {
	kind := "hello (WASM)"
	if len(urls) > 1 {
		kind = "hello (WASM), web (container)"
	}
	fmt.Printf(`
     alice ──signed request──▶ bob ── %s
                               │ dials out, keeps the tunnel
     browser ──HTTP──▶ gw ◀────┘
`, kind)
}

func (d *demo) next(urls []string) {
	fmt.Printf("\nIt stays up until Ctrl-C. In another terminal, try:\n")
	for _, u := range urls {
		fmt.Printf("   curl %s/\n", u)
	}
	ctl := filepath.Join(d.bin, "peerctl")
	fmt.Printf("   export PEERCOMPUTE_HOME=%s\n", d.node("alice").home)
	fmt.Printf("   %s ps\n   %s logs -f hello\n   %s stop hello\n   %s status\n", ctl, ctl, ctl, ctl)
	fmt.Printf("   %s --home %s peers remove alice     # and alice's workloads stop at once\n", ctl, d.node("bob").home)
}
