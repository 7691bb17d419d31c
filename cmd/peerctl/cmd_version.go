package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

// versionTime bounds how long version waits for the node: its answer is extra.
const versionTime = 2 * time.Second

type versions struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Node     string `json:"node,omitempty"` // of the node, if one answers
}

func cmdVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of peerctl and of the node",
		Example: `  peerctl version
  peerctl version -o json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.version(cmd.Context()) },
	}
}

func (a *app) version(ctx context.Context) error {
	v := versions{Version: buildVersion(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	ctx, cancel := context.WithTimeout(ctx, versionTime)
	defer cancel()
	// No node is no failure here.
	_ = a.withClient(func(c *control.Client) error {
		me, err := c.Whoami(ctx)
		v.Node = me.Version
		return err
	})
	if a.json() {
		return a.printJSON(v)
	}
	t := newTable(a.out)
	t.row("peerctl:", v.Version)
	t.row("node:", either(v.Node != "", v.Node, "none answers"))
	t.row("built:", v.Go+" "+v.Platform)
	return t.flush()
}

// version is set by the linker in builds by the Makefile.
var version string

// buildVersion is what the linker or else the Go tool stamped into this program.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
