package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdInspect(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:   "inspect WORKLOAD",
		Short: "Show all that is known of a workload",
		Example: `  peerctl inspect hello
  peerctl inspect hello -o json`,
		Args:              takes("a WORKLOAD (its name or the start of its ID)"),
		ValidArgsFunction: a.completeWorkloads,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.inspect(cmd.Context(), args[0], peer) },
	}
	a.peerFlag(cmd, &peer)
	return cmd
}

func (a *app) inspect(ctx context.Context, ref, peer string) error {
	return a.withClient(func(c *control.Client) error {
		w, err := c.Workload(ctx, ref, peer)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(w)
		}
		t := newTable(a.out)
		line := func(key, text string) {
			if text != "" {
				t.row(key+":", text)
			}
		}
		line("name", w.Name)
		line("id", string(w.ID))
		line("state", a.stateLine(w))
		line("reason", w.Status.Reason)
		line("held", w.Status.Held)
		if w.Revision > 1 || w.Update != nil {
			line("revision", fmt.Sprint(w.Revision))
		}
		if u := w.Update; u != nil {
			line("update", strings.TrimSuffix(fmt.Sprintf("revision %d is %s: %s", u.Revision, u.Status.State, u.Status.Reason), ": "))
		}
		line("url", w.URL)
		line("peer", fmt.Sprintf("%s (%s)", w.Peer, w.PeerID))
		line("owner", fmt.Sprintf("%s (%s)", w.Owner, w.OwnerID))
		line("kind", strings.TrimSuffix(fmt.Sprintf("%s %s", w.Kind, w.Shape), " "))
		line("image", imageText(w.Image))
		line("digest", w.Status.Digest)
		if w.Spec != nil {
			specLines(line, w, a.heldBy(ctx, c, w))
		}
		if !w.Created.IsZero() {
			line("created", fmt.Sprintf("%s (%s ago)", w.Created.Local().Format("2006-01-02 15:04:05"), a.age(w.Created)))
		}
		return t.flush()
	})
}

func (a *app) stateLine(w control.Workload) string {
	s := stateOf(w)
	if !w.Status.Since.IsZero() {
		s += ", since " + a.age(w.Status.Since)
	}
	if w.Status.Restarts > 0 {
		s += ", " + plural(w.Status.Restarts, "restart")
	}
	return s
}

// heldBy is what the volumes of a workload hold, by their names, for people.
func (a *app) heldBy(ctx context.Context, c *control.Client, w control.Workload) map[string]string {
	out := map[string]string{}
	if w.Spec == nil || len(w.Spec.Volumes) == 0 {
		return out
	}
	peer := w.Peer
	if peer == self {
		peer = ""
	}
	all, err := c.Volumes(ctx, peer)
	if err != nil {
		a.note("how full its volumes are cannot be said: %s", root(err))
	}
	for _, v := range all {
		if v.OwnerID == w.OwnerID && v.Used > 0 {
			out[v.Name] = fmt.Sprintf(" (%s of %s used)", formatSize(v.Used), formatSize(v.Size))
		}
	}
	return out
}

func specLines(line func(key, text string), w control.Workload, held map[string]string) {
	s := w.Spec
	line("limits", describeResources(s.Resources))
	if s.Timeout > 0 {
		line("timeout", s.Timeout.String())
	}
	if s.Port > 0 {
		line("port", fmt.Sprint(s.Port))
	}
	line("restart", string(s.Restart))
	if s.Health != nil {
		line("health", describeHealth(*s.Health))
	}
	line("egress", strings.Join(append([]string{string(s.Egress)}, s.Hosts...), " "))
	line("project", s.Project)
	line("network", strings.Join(s.AllNetworks(), " "))
	line("aliases", strings.Join(s.Aliases, " "))
	line("writable", strings.Join(s.Tmpfs, " "))
	for _, m := range s.Volumes {
		line("volume", describeVolume(m)+held[m.Name])
	}
	for _, m := range s.Secrets {
		line("secret", m.Name+" at "+mesh.SecretsDir+"/"+m.File())
	}
	line("clock", string(s.Clock))
	if s.Concurrency > 0 {
		line("concurrency", fmt.Sprint(s.Concurrency))
	}
	if s.Idle > 0 {
		line("idle after", s.Idle.String())
	}
	if s.FuelDay > 0 {
		line("fuel a day", formatFuel(s.FuelDay))
	}
	if len(s.Entrypoint) > 0 {
		line("entry point", fmt.Sprintf("%q", s.Entrypoint))
	}
	line("directory", s.WorkDir)
	if len(s.Args) > 0 {
		line("args", fmt.Sprintf("%q", s.Args))
	}
	if len(s.Env) > 0 {
		// Values are often secrets, and a terminal is often seen by others.
		keys := make([]string, len(s.Env))
		for i, e := range s.Env {
			keys[i], _, _ = strings.Cut(e, "=")
		}
		line("env", strings.Join(keys, ", ")+"  (values: -o json)")
	}
	if s.Publish != nil && w.URL == "" {
		line("publish", strings.TrimSpace("asked for "+s.Publish.Gateway)+", not routed now")
	}
}
