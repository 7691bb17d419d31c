package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

type deployFlags struct {
	workFlags
	server   serverFlags
	health   healthFlags
	port     uint16
	disk     int64
	tmpfs    []string
	publish  bool
	gateway  string
	restart  mesh.Restart
	egress   egressFlags
	volumes  volumeFlags
	secrets  []mesh.SecretMount
	detach   bool
	recreate bool
	dryRun   bool
	push     bool
	file     string // a Compose file
	profiles []string
}

func cmdDeploy(a *app) *cobra.Command {
	var f deployFlags
	cmd := &cobra.Command{
		Use:   "deploy IMAGE|DIR|FILE.wasm [-- ARGS…] | --file compose.yaml",
		Short: "Start a container or a WASM service, here or on a peer",
		Long: `Starts a container from an image, or a WASM program that answers HTTP requests
(WASI preview 1: CGI, or with --serve a server that accepts connections), and
waits until it answers. Prints its URL if it is published, else its ID; what
happens meanwhile is told on stderr.

An image that only this machine has is sent along, if the peer lets you; with --push
it always is. A directory with a Dockerfile (./DIR) is built on this machine, never
on the peer's.

With --file the services of a Compose file are deployed, in private networks of
their own: a port that it publishes becomes a public name, unless --publish=false.
What of the file cannot be had is named, all of it, before anything is done. Services
that are as the file says are left alone; see also: peerctl down.

Where you have a workload of that name there already, this updates it: the new
revision starts beside the old one and takes its place once it is ready. The URL
stays, and no request is lost. If the new one is not ready in time the old one
serves on, and the exit code is 1. A revision with a volume of the one before starts
once that has ended: one at a time writes to a volume.`,
		Example: `  peerctl deploy hello.wasm --publish
  peerctl deploy api.wasm --serve --idle 10m --allow-host db.example.org:443
  peerctl deploy nginx:1.27 --peer bob --port 80 --tmpfs /run --tmpfs /var/cache/nginx --publish --health http:/
  peerctl deploy shop:3 --peer bob --port 8080 --network shop --egress allow:api.example.org:443
  peerctl deploy notes:2 --peer bob --port 8080 --volume notes:/var/lib/notes:size=4G
  peerctl deploy --file compose.yaml --peer bob --dry-run
  peerctl deploy ./site --peer bob --port 8080 --publish
  peerctl deploy worker:2 --peer bob --memory 512M --env-file prod.env -- --queue mail`,
		Args: func(cmd *cobra.Command, args []string) error {
			if f.file != "" {
				return nil // deployFile says what is wrong
			}
			return programArgs("an IMAGE or a FILE.wasm", false)(cmd, args)
		},
		ValidArgsFunction: completeModules,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.settle(cmd); err != nil {
				return err
			}
			if f.file != "" {
				return a.deployFile(cmd, &f, args)
			}
			return a.deploy(cmd.Context(), &f, args[0], args[1:])
		},
	}
	a.addDeployFlags(cmd, &f)
	flags := cmd.Flags()
	flags.BoolVarP(&f.detach, "detach", "d", false, "return as soon as the peer has accepted it")
	flags.StringVarP(&f.file, "file", "f", "", "deploy the services of a Compose `FILE`, those that others depend on first")
	flags.StringArrayVar(&f.profiles, "profile", nil, "with --file, deploy the services of this `PROFILE` too; repeatable (default $COMPOSE_PROFILES)")
	flags.BoolVar(&f.push, "push", false, "send the image along from this machine, only the layers that the peer lacks")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only ask what would be decided, rule by rule, and do nothing")
	return cmd
}

// addDeployFlags adds what says how a workload is to run.
func (a *app) addDeployFlags(cmd *cobra.Command, f *deployFlags) {
	a.addWorkFlags(cmd, &f.workFlags)
	f.server.add(cmd)
	f.health.add(cmd)
	flags := cmd.Flags()
	portVar(flags, &f.port, "port", "TCP port that a container listens on")
	sizeVar(flags, &f.disk, "disk", "scratch space of a container (default "+formatSize(mesh.DefaultDisk)+")")
	flags.StringArrayVar(&f.tmpfs, "tmpfs", nil, "`DIR` that a container may write to, all else but /tmp being read-only; gone with each start; all share --disk evenly; repeatable")
	flags.BoolVar(&f.publish, "publish", false, "give it a public URL")
	flags.StringVar(&f.gateway, "gateway", "", "`NAME` of the gateway to publish through (default: the peer's only one)")
	choiceVar(cmd, flags, &f.restart, "restart", "", "when to start it again: no, on-failure or always (default on-failure)",
		mesh.RestartNo, mesh.RestartOnFailure, mesh.RestartAlways)
	f.egress.add(cmd)
	f.volumes.add(cmd)
	flags.Var(&secretsValue{to: &f.secrets}, "secret", "give a container a secret as the file /run/secrets/TARGET (default: its name); repeatable")
	flags.BoolVar(&f.recreate, "recreate", false, "to update, stop the old revision before the new one starts: room for one is enough, and nothing answers meanwhile")
	completeFlag(cmd, "gateway", a.completePeerFlag())
}

// settle draws the conclusions from flags that belong together.
func (f *deployFlags) settle(cmd *cobra.Command) error {
	if f.gateway == "" || f.publish {
		return nil
	}
	if cmd.Flags().Changed("publish") {
		return usagef("--gateway contradicts --publish=false")
	}
	f.publish = true
	return nil
}

func (a *app) deploy(ctx context.Context, f *deployFlags, target string, args []string) error {
	spec, err := a.spec(&f.workFlags, args)
	if err != nil {
		return err
	}
	spec.Port, spec.Restart, spec.Tmpfs = f.port, f.restart, f.tmpfs
	if err := f.egress.apply(&spec); err != nil {
		return err
	}
	spec.Secrets = f.secrets
	if f.disk != 0 {
		spec.Resources.Disk = f.disk
	}
	spec.Volumes = f.volumes.mounts
	if err := f.health.apply(&spec); err != nil {
		return err
	}
	if f.publish {
		spec.Publish = &mesh.Publication{Gateway: f.gateway}
	}
	build, err := isBuildDir(target)
	if err != nil {
		return err
	}
	wasm := false
	if !build {
		if wasm, err = isModule(target); err != nil {
			return err
		}
	}
	if f.dryRun && (build || f.push) {
		return usagef("--dry-run cannot judge an image that is yet to be built or pushed").hint("push it with: peerctl image push   or leave --push out")
	}
	var mod *module
	if wasm {
		if mod, err = openModule(target); err != nil {
			return err
		}
		defer mod.Close()
		asModule(&spec, mod, mesh.HTTP)
		f.server.apply(&spec)
	} else {
		spec.Runtime, spec.Image = mesh.Container, target
		if spec.Name == "" && build {
			spec.Name = dirName(target)
		} else if spec.Name == "" {
			spec.Name = imageName(target)
		}
	}
	if err := f.misplaced(wasm); err != nil {
		return err
	}
	if err := sign(&spec, f.signed); err != nil {
		return err
	}
	if err := check(spec); err != nil {
		return err
	}
	if f.dryRun {
		return a.askDecision(ctx, control.Deploy{Peer: f.peer, Spec: spec, Recreate: f.recreate})
	}
	return a.withClient(func(c *control.Client) error {
		p := a.progress()
		if mod != nil {
			if err := mod.upload(ctx, c, p); err != nil {
				return err
			}
		}
		if build {
			if spec.Image, err = a.buildDir(ctx, c, control.Build{Dir: target}); err != nil {
				return err
			}
			spec.Digest = spec.Image
		}
		return a.sendDeploy(ctx, c, p, control.Deploy{Peer: f.peer, Spec: spec, Wait: !f.detach, Push: f.push || build, Recreate: f.recreate})
	})
}

// misplaced refuses flags that would be ignored without a word.
func (f *deployFlags) misplaced(wasm bool) error {
	switch {
	case f.signed != "" && f.push:
		return usagef("--signature is about an image in a registry: one that is pushed is called by another digest")
	case wasm && f.push:
		return usagef("--push is for containers: a WASM module is always sent along")
	case wasm && f.port != 0:
		return usagef("--port is for containers: a WASM service is handed each request, or with --serve finds its listener open")
	case wasm && f.disk != 0:
		return usagef("--disk is for containers: the files of a WASM program are --scratch")
	case wasm && len(f.tmpfs) > 0:
		return usagef("--tmpfs is for containers: a WASM program writes below --scratch")
	case !wasm && f.timeout != 0:
		return usagef("--timeout is for WASM programs: a container runs until it is stopped")
	}
	if wasm && len(f.secrets) > 0 {
		return usagef("--secret is for containers: a WASM program gets none yet")
	}
	if err := f.egress.misplaced(wasm); err != nil {
		return err
	}
	if err := f.volumes.misplaced(wasm); err != nil {
		return err
	}
	if !wasm {
		if err := f.guest.misplaced(); err != nil {
			return err
		}
	}
	return f.server.misplaced(wasm)
}

func (a *app) sendDeploy(ctx context.Context, c *control.Client, p *progress, d control.Deploy) error {
	last, err := a.followDeploy(ctx, p, d.Wait, func(on func(control.DeployEvent)) (control.Workload, error) {
		return c.Deploy(ctx, d, on)
	})
	if err != nil {
		return err
	}
	return a.showDeployed(last, d)
}

// followDeploy tells what happens until a workload is up, or why it is not.
func (a *app) followDeploy(ctx context.Context, p *progress, wait bool, do func(on func(control.DeployEvent)) (control.Workload, error)) (control.Workload, error) {
	var log []string
	var seen *control.Workload
	last, err := do(func(ev control.DeployEvent) {
		if ev.Workload != nil {
			seen = ev.Workload
			if wait {
				p.workload(*ev.Workload)
			}
		}
		if ev.Note != "" {
			p.clear()
			a.note("%s", ev.Note)
		}
		if ev.Progress != nil {
			p.bytes(ev.Progress.What, ev.Progress.Done, ev.Progress.Total)
		}
		if len(ev.Log) > 0 {
			log = ev.Log
		}
	})
	p.clear()
	if err != nil && ctx.Err() != nil {
		switch {
		case seen == nil:
			return last, mesh.Errorf(mesh.Canceled, "interrupted").WithHint("it may have been accepted; look with: peerctl ps")
		case seen.Update != nil:
			return last, mesh.Errorf(mesh.Canceled, "interrupted").
				WithHint("the update of %s goes on by itself; look with: peerctl history %s", seen.Name, seen.Name)
		}
		return last, mesh.Errorf(mesh.Canceled, "interrupted").
			WithHint("%s stays deployed; remove it with: peerctl rm -f %s", seen.Name, seen.Name)
	}
	if err != nil {
		return last, &deployError{error: withDeployHint(err, seen, log), workload: seen, log: log}
	}
	return last, nil
}

// withDeployHint names the next step after a failure that left a record behind: what
// the log tells to change, or what the node named.
func withDeployHint(err error, w *control.Workload, log []string) error {
	var known *mesh.Error
	if w == nil || !errors.As(err, &known) {
		return err
	}
	if known.Hint == "" {
		known.Hint = fmt.Sprintf("read its log with: peerctl logs %s   remove it with: peerctl rm -f %s", w.Name, w.Name)
	}
	if w.Kind == mesh.Container {
		known.Hint = cmp.Or(cureFor(log), known.Hint)
	}
	return err
}

func (a *app) showDeployed(w control.Workload, d control.Deploy) error {
	if d.Wait && d.Spec.Publish != nil && w.URL == "" {
		return &deployError{workload: &w, error: mesh.Errorf(mesh.Unavailable, "%s is %s%s, but has no public name yet", w.Name, w.State, onPeer(w)).
			WithHint("see whether its gateway is connected: peerctl status")}
	}
	if a.json() {
		return a.printJSON(w)
	}
	a.note("%s is %s%s (%s%s)", w.Name, w.State, onPeer(w), shortID(w.ID), revisionNote(w))
	if w.URL != "" {
		return a.println(w.URL)
	}
	if d.Spec.Publish == nil && (d.Spec.Runtime == mesh.Wasm || d.Spec.Port != 0) {
		a.note("it has no public name; give it one with: peerctl publish %s", w.Name)
	}
	return a.println(string(w.ID))
}

// revisionNote names the revision of a workload that was updated.
func revisionNote(w control.Workload) string {
	if w.Revision < 2 {
		return ""
	}
	return fmt.Sprintf(", revision %d", w.Revision)
}

func onPeer(w control.Workload) string {
	if w.Peer == "" || w.Peer == self {
		return ""
	}
	return " on " + w.Peer
}

func (a *app) println(s string) error {
	_, err := fmt.Fprintln(a.out, clean(s))
	return err
}
