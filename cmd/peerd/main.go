// Peerd lends this machine to trusted peers and uses theirs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/driver/docker"
	"peercompute/pkg/driver/wasm"
	"peercompute/pkg/heartbeat"
	"peercompute/pkg/member"
	"peercompute/pkg/mesh"
	"peercompute/pkg/node"
)

func main() { os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr)) }

// version is set by the linker.
var version = "dev"

// Main runs the program and returns its exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "peerd",
		Short:         "Lend this machine's compute to peers you trust, and use theirs",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand(stderr), doctorCommand(stdout), restoreCommand(os.Stdin, stderr), workerCommand(), copierCommand(), versionCommand())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(stderr, "peerd:", err)
		var e *mesh.Error
		if errors.As(err, &e) && e.Hint != "" {
			fmt.Fprintln(stderr, "next:", e.Hint)
		}
		return 1
	}
	return 0
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) { fmt.Fprintln(c.OutOrStdout(), "peerd", version, runtime.Version()) },
	}
}

const workerName = "wasm-worker"

// workerCommand is what peerd runs itself as, to keep guests out of its process.
func workerCommand() *cobra.Command {
	return &cobra.Command{
		Use: workerName, Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return wasm.WorkerMain(c.Context()) },
	}
}

const copierName = "container-copy"

// copierCommand is what peerd runs itself as, to copy a container's files as its user.
func copierCommand() *cobra.Command {
	return &cobra.Command{
		Use: copierName, Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return docker.CopyMain(c.Context()) },
	}
}

func runCommand(stderr io.Writer) *cobra.Command {
	var home, file, logLevel, beat, runtime string
	var listen []string
	var accept accepted
	var meet meetConfig
	c := &cobra.Command{
		Use:     "run",
		Short:   "Run the daemon until it is told to stop",
		Example: "  peerd run\n  peerd run --home ~/peer --listen /ip4/0.0.0.0/tcp/4001 --listen /ip4/0.0.0.0/udp/4001/quic-v1",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if home == "" {
				var err error
				if home, err = control.DefaultHome(); err != nil {
					return err
				}
			}
			cfg, err := loadConfig(home, file)
			if err != nil {
				return err
			}
			if c.Flags().Changed("listen") {
				cfg.Listen = listen
			}
			if c.Flags().Changed("log-level") {
				cfg.LogLevel = logLevel
			}
			if c.Flags().Changed("heartbeat") {
				cfg.Heartbeat = beat
			}
			if c.Flags().Changed("runtime") {
				cfg.Docker.Runtime = runtime
			}
			cfg.Meet.override(c.Flags(), meet)
			if err := cfg.validate(); err != nil {
				return err
			}
			return run(c.Context(), home, cfg, accept, stderr)
		},
	}
	f := c.Flags()
	f.StringVar(&home, "home", "", "the node's home directory (default: $"+control.HomeEnv+", else the user's configuration directory)")
	f.StringVar(&file, "config", "", "configuration file (default: HOME/peerd.toml, if it is there)")
	f.StringArrayVar(&listen, "listen", nil, "multiaddr to listen on; repeat for several")
	f.StringVar(&logLevel, "log-level", "", "debug, info, warn or error")
	f.StringVar(&runtime, "runtime", "", "the container engine's runtime for workloads, such as runsc (default: the engine's)")
	meet.flags(f)
	f.BoolVar(&accept.newState, "new-state", false, "accept that the state file is lost and begin a new one")
	f.BoolVar(&accept.oldState, "old-state", false, "accept a state file that is not the latest, such as one from a backup")
	f.StringVar(&beat, "heartbeat", "", "time between two signs of life to one peer, such as 15s")
	return c
}

// accepted is what only the owner may declare to be no loss.
type accepted struct{ newState, oldState bool }

func run(ctx context.Context, home string, cfg config, accept accepted, stderr io.Writer) (err error) {
	home, err = filepath.Abs(home)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: cfg.level()}))
	interval, err := heartbeat.ParseInterval(cfg.Heartbeat)
	if err != nil {
		return err
	}
	knock, err := cfg.Meet.knock()
	if err != nil {
		return err
	}
	modules, err := node.OpenModules(home)
	if err != nil {
		return err
	}
	rt := &runtimes{modules: modules}
	for {
		err := once(ctx, rt, cfg, member.Config{
			Home: home, Listen: cfg.Listen, Role: "peer", Version: version, NewState: accept.newState, OldState: accept.oldState, Heartbeat: interval, Log: log,
			Knock: knock, Announce: cfg.Meet.announce(),
		})
		if !errors.Is(err, member.ErrRestart) {
			return err
		}
		log.Info("starting again under the new key")
		accept = accepted{}
	}
}

// once runs the node until it is told to stop, or its key has changed: then it
// returns member.ErrRestart, and what runs goes on and is adopted the next time.
func once(ctx context.Context, rt *runtimes, cfg config, mc member.Config) (err error) {
	m, err := member.Open(mc)
	if err != nil {
		return errors.Join(err, rt.close())
	}
	defer func() {
		if ctx.Err() != nil && (errors.Is(err, member.ErrRestart) || errors.Is(err, context.Canceled)) {
			err = nil // it was told to stop as well, or that is all that broke off
		}
		if !errors.Is(err, member.ErrRestart) {
			err = errors.Join(err, rt.close())
		}
		if closed := m.Close(); closed != nil {
			err = errors.Join(closed, rt.close()) // nothing is begun anew on that
		}
	}()
	if err := rt.open(ctx, cfg, m); err != nil {
		return err
	}
	n, err := node.New(node.Config{Member: m, Modules: rt.modules, Runtimes: rt.all, Lend: cfg.lend(), Warnings: rt.warnings})
	if err != nil {
		return err
	}
	return n.Run(ctx, func() {
		m.Log.Info("peerd is up", "id", m.Key.ID, "addrs", m.Net.Addrs(), "home", m.Home, "version", version)
	})
}

// workerProcess runs this very program as a WASM worker.
func workerProcess() *exec.Cmd { return exec.Command(itself(), workerName) }

// copierProcess runs this very program to copy a container's files.
func copierProcess(ctx context.Context) *exec.Cmd {
	return exec.CommandContext(ctx, itself(), copierName)
}

func itself() string {
	self, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return self
}
