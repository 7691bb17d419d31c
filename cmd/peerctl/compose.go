package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// composeFlags are what goes with deploy --file; the file says all the rest.
var composeFlags = []string{"file", "peer", "gateway", "dry-run", "push", "recreate", "output", "home"}

// step is what is done about one service of a Compose file.
type step struct {
	Name   string `json:"name"`
	Action string `json:"action"` // create, update or keep; of a secret set
	Image  string `json:"image"`
	Note   string `json:"note,omitempty"` // a refusal, or that the image is built first

	service control.ComposeService
	secret  []byte // unless nil, what it sets is a secret
	refused bool
}

func (a *app) deployFile(cmd *cobra.Command, f *deployFlags, args []string) error {
	if len(args) > 0 {
		return usagef("--file says what is deployed: it takes no argument %q", args[0])
	}
	var other []string
	cmd.Flags().Visit(func(fl *pflag.Flag) {
		if !slices.Contains(composeFlags, fl.Name) {
			other = append(other, "--"+fl.Name)
		}
	})
	if len(other) > 0 {
		return usagef("with --file these are said in the file: %s", strings.Join(other, ", "))
	}
	ctx := cmd.Context()
	file, err := readCompose(f.file)
	if err != nil {
		return usagef("%s cannot be deployed: %s", f.file, root(err))
	}
	return a.withClient(func(c *control.Client) error {
		project, err := c.ReadCompose(ctx, file)
		if err == nil && len(project.Needs) > 0 {
			if err = addFiles(&file, project.Needs); err == nil {
				project, err = c.ReadCompose(ctx, file)
			}
		}
		if mesh.KindOf(err) == mesh.Invalid {
			return usageError{mesh.AsError(err)}
		}
		if err != nil {
			return err
		}
		plan, err := a.plan(ctx, c, f, project)
		if err != nil {
			return err
		}
		if f.dryRun {
			return a.showPlan(plan)
		}
		return a.carryOut(ctx, c, f, plan)
	})
}

const maxCompose = 256 << 10 // bytes of a Compose file, and of each that it refers to

// readCompose reads a Compose file and the .env beside it. Of this process's
// environment goes along what the files mention.
func readCompose(path string) (f control.ComposeFile, err error) {
	f.Name, f.Files = path, map[string][]byte{}
	if f.Dir, err = filepath.Abs(filepath.Dir(path)); err != nil {
		return f, err
	}
	if f.Text, err = readSmall(path, maxCompose); err != nil {
		return f, err
	}
	return f, addFiles(&f, []string{".env"})
}

// addFiles adds files by their paths from the Compose file; one that is not there is
// nil.
func addFiles(f *control.ComposeFile, paths []string) error {
	for _, p := range paths {
		full := p
		if !filepath.IsAbs(p) {
			full = filepath.Join(f.Dir, p)
		}
		text, err := readSmall(full, maxCompose)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && text == nil {
			text = []byte{}
		}
		f.Files[p] = text
	}
	f.Environ = nil
	for _, kv := range os.Environ() {
		k, _, _ := strings.Cut(kv, "=")
		said := k != "" && bytes.Contains(f.Text, []byte(k))
		for _, text := range f.Files {
			said = said || k != "" && bytes.Contains(text, []byte(k))
		}
		if said {
			f.Environ = append(f.Environ, kv)
		}
	}
	return nil
}

// readSmall reads a file of at most so many bytes.
func readSmall(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s is over %s", name, formatSize(most))
	}
	return data, err
}

// plan compares what the file says with what is there. A workload of the same name
// that does not belong to this project is not touched.
func (a *app) plan(ctx context.Context, c *control.Client, f *deployFlags, project control.ComposeProject) ([]step, error) {
	plan, err := readSecrets(project.Secrets)
	if err != nil {
		return nil, err
	}
	var foreign []string
	for _, s := range project.Services {
		if s.Spec.Publish != nil {
			s.Spec.Publish.Gateway = f.gateway
		}
		st := step{Name: s.Spec.Name, Action: "create", Image: s.Spec.Image, service: s}
		have, err := c.Workload(ctx, s.Spec.Name, f.peer)
		switch {
		case mesh.KindOf(err) == mesh.NotFound:
		case err != nil:
			return nil, err
		case have.Spec == nil || have.Spec.Network != s.Spec.Network:
			foreign = append(foreign, st.Name)
		case s.Build == "" && same(*have.Spec, s.Spec):
			st.Action = "keep"
		default:
			st.Action = "update"
		}
		if s.Build != "" {
			st.Image, st.Note = s.Build, "built on this machine first"
		} else if st.Action != "keep" {
			e, err := c.Explain(ctx, control.Deploy{Peer: f.peer, Spec: withoutSecrets(s.Spec, project.Secrets), Recreate: f.recreate})
			if err != nil {
				return nil, err
			}
			if !e.Allow {
				st.refused, st.Note = true, wouldRefuse(e).Error()
			}
		}
		plan = append(plan, st)
	}
	if len(foreign) > 0 {
		return nil, mesh.Errorf(mesh.Conflict, "workloads of these names exist, and are not on the network %s of this file: %s", project.Name, strings.Join(foreign, ", ")).
			WithHint("give the services other names with container_name, or remove the workloads: peerctl rm %s", foreign[0])
	}
	return plan, nil
}

// readSecrets reads what is to be kept at the peer before the services start.
func readSecrets(secrets []control.ComposeSecret) (plan []step, err error) {
	for _, s := range secrets {
		value, err := readSmall(s.File, mesh.MaxSecret)
		if err == nil {
			err = mesh.ValidSecret(s.Name, value)
		}
		if err != nil {
			return nil, usagef("the secret %s cannot be set: %s", s.Name, root(err))
		}
		plan = append(plan, step{Name: s.Name, Action: "set", Note: "a secret, from " + s.File, secret: value})
	}
	return plan, nil
}

// withoutSecrets leaves out the secrets that will be there by the time of the deploy.
func withoutSecrets(s mesh.Spec, set []control.ComposeSecret) mesh.Spec {
	s.Secrets = slices.DeleteFunc(slices.Clone(s.Secrets), func(m mesh.SecretMount) bool {
		return slices.ContainsFunc(set, func(o control.ComposeSecret) bool { return o.Name == m.Name })
	})
	return s
}

// same reports whether a workload is as the file says, defaults filled in.
func same(have, want mesh.Spec) bool {
	have, want = have.WithDefaults(), want.WithDefaults()
	have.Digest, want.Digest = "", ""
	for _, s := range []*mesh.Spec{&have, &want} {
		if s.Health != nil {
			h := s.Health.WithDefaults()
			s.Health = &h
		}
		if len(s.Args) == 0 {
			s.Args = nil
		}
		if len(s.Env) == 0 {
			s.Env = nil
		}
	}
	return reflect.DeepEqual(have, want)
}

func (a *app) showPlan(plan []step) error {
	refused, services := 0, 0
	t := newTable(a.out, "NAME", "ACTION", "IMAGE", "NOTE")
	for _, s := range plan {
		if s.refused {
			refused++
		}
		if s.secret == nil {
			services++
		}
		t.row(s.Name, s.Action, s.Image, s.Note)
	}
	err := error(nil)
	if a.json() {
		fill(&plan)
		err = a.printJSON(plan)
	} else {
		err = t.flush()
	}
	if err == nil && refused > 0 {
		err = mesh.Errorf(mesh.Denied, "%d of %d services would be refused", refused, services).WithHint("what to ask for is said beside each")
	}
	return err
}

// carryOut deploys one service after the other. What is up when one fails stays up;
// to deploy the file again goes on from there.
func (a *app) carryOut(ctx context.Context, c *control.Client, f *deployFlags, plan []step) error {
	all := []control.Workload{}
	for _, s := range plan {
		if s.secret != nil {
			if err := c.SetSecret(ctx, f.peer, s.Name, s.secret); err != nil {
				return err
			}
			a.note("the secret %s is set; a service that runs already gets it when it starts the next time", s.Name)
			continue
		}
		spec := s.service.Spec
		var w control.Workload
		err := error(nil)
		if s.Action == "keep" {
			w, err = c.Workload(ctx, s.Name, f.peer)
		} else {
			p := a.progress()
			if dir := s.service.Build; dir != "" {
				if spec.Image, err = a.buildDir(ctx, c, dir); err != nil {
					return err
				}
				spec.Digest = spec.Image
			}
			w, err = a.followDeploy(ctx, p, true, func(on func(control.DeployEvent)) (control.Workload, error) {
				return c.Deploy(ctx, control.Deploy{Peer: f.peer, Spec: spec, Wait: true, Push: f.push || s.service.Build != "", Recreate: f.recreate}, on)
			})
		}
		if err != nil {
			if len(all) > 0 {
				services := len(slices.DeleteFunc(plan, func(s step) bool { return s.secret != nil }))
				a.note("%d of %d services are up; deploy the file again to go on", len(all), services)
			}
			return err
		}
		all = append(all, w)
		if a.json() {
			continue
		}
		a.note("%s is %s%s (%s)", w.Name, w.State, onPeer(w), s.Action)
		if w.URL != "" {
			if err := a.println(w.URL); err != nil {
				return err
			}
		}
	}
	if a.json() {
		return a.printJSON(all)
	}
	return nil
}
