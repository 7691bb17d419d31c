// Peergate is the public gateway of a mesh: it routes public names to the peers
// that publish them, and runs no user code.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"peercompute/gateway"
	"peercompute/pkg/control"
	"peercompute/pkg/heartbeat"
	"peercompute/pkg/member"
	"peercompute/pkg/mesh"
)

func main() { os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr)) }

// version is set by the linker.
var version = "dev"

// Main runs the program and returns its exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "peergate",
		Short:         "Route public names to the peers that publish them",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand(stderr), &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) {
			fmt.Fprintln(c.OutOrStdout(), "peergate", version, runtime.Version())
		},
	})
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(stderr, "peergate:", err)
		var e *mesh.Error
		if errors.As(err, &e) && e.Hint != "" {
			fmt.Fprintln(stderr, "next:", e.Hint)
		}
		return 1
	}
	return 0
}

// options are the flags of run.
type options struct {
	home, domain, http string
	heartbeat          string
	listen             []string
	rateIP, rateName   float64
	debug              bool
	newState, oldState bool
}

func runCommand(stderr io.Writer) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:     "run",
		Short:   "Run the gateway until it is told to stop",
		Example: "  peergate run --domain apps.example.org --http :80\n  peergate run --home ./gw --domain localhost --http 127.0.0.1:8080 --listen /ip4/127.0.0.1/tcp/4101",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return run(c.Context(), o, stderr) },
	}
	f := c.Flags()
	f.StringVar(&o.home, "home", "", "the gateway's home directory (default: $"+control.HomeEnv+", else the user's configuration directory)")
	f.StringVar(&o.domain, "domain", "localhost", "the parent of all public names")
	f.StringVar(&o.http, "http", "127.0.0.1:8080", "TCP address to serve the public on")
	f.StringArrayVar(&o.listen, "listen", []string{"/ip4/0.0.0.0/tcp/4101", "/ip4/0.0.0.0/udp/4101/quic-v1"}, "multiaddr that peers dial; repeat for several")
	f.Float64Var(&o.rateIP, "rate-ip", 200, "requests a second from one client address; 0 = no limit")
	f.Float64Var(&o.rateName, "rate-name", 2000, "requests a second to one public name; 0 = no limit")
	f.StringVar(&o.heartbeat, "heartbeat", heartbeat.DefaultInterval.String(), "time between two signs of life to one peer")
	f.BoolVar(&o.debug, "debug", false, "log more")
	f.BoolVar(&o.newState, "new-state", false, "accept that the state file is lost and begin a new one")
	f.BoolVar(&o.oldState, "old-state", false, "accept a state file that is not the latest, such as one from a backup")
	return c
}

func run(ctx context.Context, o options, stderr io.Writer) (err error) {
	if o.home == "" {
		if o.home, err = control.DefaultHome(); err != nil {
			return err
		}
	}
	if o.home, err = filepath.Abs(o.home); err != nil {
		return err
	}
	level := slog.LevelInfo
	if o.debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	interval, err := heartbeat.ParseInterval(o.heartbeat)
	if err != nil {
		return err
	}
	for {
		err := serve(ctx, o, interval, log)
		if ctx.Err() != nil && (errors.Is(err, member.ErrRestart) || errors.Is(err, context.Canceled)) {
			return nil // it was told to stop as well, or that is all that broke off
		}
		if !errors.Is(err, member.ErrRestart) {
			return err
		}
		log.Info("starting again under the new key")
		o.newState, o.oldState = false, false
	}
}

func serve(ctx context.Context, o options, interval time.Duration, log *slog.Logger) (err error) {
	m, err := member.Open(member.Config{
		Home: o.home, Listen: o.listen, Role: "gateway", Version: version, NewState: o.newState, OldState: o.oldState, Heartbeat: interval, Log: log,
	})
	if err != nil {
		return err
	}
	defer func() {
		if closed := m.Close(); closed != nil {
			err = closed // also where it was to start again
		}
	}()
	g, err := gateway.New(gateway.Config{Member: m, Domain: o.domain, HTTP: o.http, RateIP: o.rateIP, RateName: o.rateName})
	if err != nil {
		return err
	}
	return g.Run(ctx, func(public string) {
		log.Info("peergate is up", "id", m.Key.ID, "addrs", m.Net.Addrs(), "public", public, "domain", o.domain, "version", version)
	})
}
