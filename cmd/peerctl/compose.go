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
var composeFlags = []string{"file", "peer", "gateway", "dry-run", "push", "recreate", "profile", "publish", "output", "home"}

// step is what is done about one service of a Compose file.
type step struct {
	Name   string `json:"name"`
	Action string `json:"action"` // create, update, start (as it is) or keep; of a secret set; none of what the file no longer names
	Image  string `json:"image"`
	Note   string `json:"note,omitempty"` // a refusal, or what is otherwise than the file says

	service control.ComposeService
	have    *control.Workload // nil = it is not there
	secret  []byte            // unless nil, what it sets is a secret
	refused bool
}

// gone is the action of a workload that the file names no more.
const gone = "none"

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
	if !cmd.Flags().Changed("publish") {
		f.publish = true // what the file publishes
	}
	ctx := cmd.Context()
	return a.withClient(func(c *control.Client) error {
		project, err := composeProject(ctx, c, f.file, f.profiles)
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

// composeProject has the node make workloads of a Compose file.
func composeProject(ctx context.Context, c *control.Client, path string, profiles []string) (p control.ComposeProject, err error) {
	file, err := readCompose(path, profiles)
	if err != nil {
		return p, usagef("%s cannot be deployed: %s", path, root(err))
	}
	p, err = c.ReadCompose(ctx, file)
	if err == nil && len(p.Needs) > 0 {
		if err = addFiles(&file, p.Needs); err == nil {
			p, err = c.ReadCompose(ctx, file)
		}
	}
	if mesh.KindOf(err) == mesh.Invalid {
		return p, usageError{mesh.AsError(err)}
	}
	return p, err
}

const maxCompose = 256 << 10 // bytes of a Compose file, and of each that it refers to

// readCompose reads a Compose file and the .env beside it. Of this process's
// environment goes along what the files mention.
func readCompose(path string, profiles []string) (f control.ComposeFile, err error) {
	f.Name, f.Files, f.Profiles = path, map[string][]byte{}, profiles
	if len(profiles) == 0 {
		f.Profiles = strings.FieldsFunc(os.Getenv("COMPOSE_PROFILES"), func(r rune) bool { return r == ',' })
	}
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
		switch port := s.Spec.Port; {
		case s.Spec.Publish == nil:
		case f.publish:
			s.Spec.Publish.Gateway = f.gateway
			s.Notes = append([]string{fmt.Sprintf("port %d gets the public name", port)}, s.Notes...)
		default:
			s.Spec.Publish = nil
			s.Notes = append([]string{fmt.Sprintf("reach it with: peerctl port-forward %s %d:%d", s.Spec.Name, port, port)}, s.Notes...)
		}
		st := step{Name: s.Spec.Name, Action: "create", Image: s.Spec.Image, service: s}
		have, err := c.Workload(ctx, s.Spec.Name, f.peer)
		switch {
		case mesh.KindOf(err) == mesh.NotFound:
		case err != nil:
			return nil, err
		case have.Spec == nil || have.Spec.Project != project.Name || have.Owner != self:
			foreign = append(foreign, st.Name)
		default:
			st.have, st.Action = &have, changed(have, s)
		}
		notes := s.Notes
		if s.Build != nil {
			st.Image = s.Build.Dir
			notes = append([]string{"built on this machine first"}, notes...)
		} else if st.Action == "keep" && ofThisMachine(st.have, s) {
			notes = append([]string{"unless the image is another on this machine by now"}, notes...)
		} else if st.Action != "keep" {
			e, err := c.Explain(ctx, control.Deploy{Peer: f.peer, Spec: withoutSecrets(s.Spec, project.Secrets), Recreate: f.recreate})
			if err != nil {
				return nil, err
			}
			if !e.Allow {
				st.refused, notes = true, append([]string{wouldRefuse(e).Error()}, notes...)
			}
		}
		st.Note = strings.Join(notes, "; ")
		plan = append(plan, st)
	}
	if len(foreign) > 0 {
		return nil, mesh.Errorf(mesh.Conflict, "workloads of these names exist, and are not of the project %s: %s", project.Name, strings.Join(foreign, ", ")).
			WithHint("give the services other names with container_name, or remove the workloads: peerctl rm %s", foreign[0])
	}
	there, err := workloadsOf(ctx, c, f.peer, project.Name)
	if err != nil {
		return nil, err
	}
	for _, w := range there {
		if !slices.ContainsFunc(plan, func(s step) bool { return s.Name == w.Name && s.secret == nil }) {
			plan = append(plan, step{Name: w.Name, Action: gone, Image: w.Image, Note: "no longer in the file; remove it with: peerctl rm -f " + w.Name})
		}
	}
	return plan, nil
}

// changed is what is to be done about a service that is there.
func changed(have control.Workload, want control.ComposeService) string {
	spec := want.Spec
	if ofThisMachine(&have, want) { // whether it is another shows once it is built, or pushed
		spec.Image = have.Spec.Image
	}
	switch {
	case !same(*have.Spec, spec):
		return "update"
	case want.Ends && have.State == mesh.Exited && have.Status.ExitCode == 0:
		return "keep"
	case want.Ends || have.State.Final():
		return "start"
	}
	return "keep"
}

// ofThisMachine reports whether the image of a service came from this machine, so that
// its name does not tell which it is.
func ofThisMachine(have *control.Workload, want control.ComposeService) bool {
	return want.Build != nil || have != nil && mesh.IsPushed(have.Spec.Image)
}

// workloadsOf lists the workloads of a Compose project, the youngest first.
func workloadsOf(ctx context.Context, c *control.Client, peer, project string) ([]control.Workload, error) {
	all, err := c.Workloads(ctx, peer)
	all = slices.DeleteFunc(all, func(w control.Workload) bool { return w.Project != project || w.Owner != self })
	slices.SortStableFunc(all, func(x, y control.Workload) int { return y.Created.Compare(x.Created) })
	return all, err
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
	refused, services, out := 0, 0, false
	t := newTable(a.out, "NAME", "ACTION", "IMAGE", "NOTE")
	for _, s := range plan {
		if s.refused {
			refused++
		}
		if s.isService() {
			services++
			out = out || s.service.Spec.Egress != ""
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
	if !out {
		a.note("the services connect to each other only; what needs more says so in the file: x-egress: internet, or allow:HOST:PORT,…")
	}
	return err
}

func (s step) isService() bool { return s.secret == nil && s.Action != gone }

// carryOut deploys one service after the other. What is up when one fails stays up;
// to deploy the file again goes on from there.
func (a *app) carryOut(ctx context.Context, c *control.Client, f *deployFlags, plan []step) error {
	all := []control.Workload{}
	services := 0
	for _, s := range plan {
		if s.isService() {
			services++
		}
	}
	for _, s := range plan {
		switch {
		case s.Action == gone:
			a.note("%s is %s", s.Name, s.Note)
			continue
		case s.secret != nil:
			if err := c.SetSecret(ctx, f.peer, s.Name, s.secret); err != nil {
				return err
			}
			a.note("the secret %s is set; a service that runs already gets it when it starts the next time", s.Name)
			continue
		}
		w, did, err := a.deployService(ctx, c, f, s)
		if err != nil {
			if len(all) > 0 {
				a.note("%d of %d services are done; deploy the file again to go on", len(all), services)
			}
			return err
		}
		all = append(all, w)
		if a.json() {
			continue
		}
		a.note("%s is %s%s (%s)", w.Name, w.State, onPeer(w), did)
		if did != "keep" {
			for _, n := range s.service.Notes {
				a.note("%s: %s", w.Name, n)
			}
		}
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

// deployService does what the plan says of one service, and returns what that was: an
// image of this machine may be another by now.
func (a *app) deployService(ctx context.Context, c *control.Client, f *deployFlags, s step) (w control.Workload, did string, err error) {
	spec := s.service.Spec
	if b := s.service.Build; b != nil {
		if spec.Image, err = a.buildDir(ctx, c, *b); err != nil {
			return w, "", err
		}
		spec.Digest = spec.Image
	}
	if s.Action == "keep" && ofThisMachine(s.have, s.service) && s.have.Spec.Digest != a.digestHere(ctx, c, s.have.Peer, spec) {
		s.Action = "update"
	}
	if s.Action == "keep" {
		return *s.have, s.Action, nil
	}
	d := control.Deploy{
		Peer: f.peer, Spec: spec, Wait: true, Push: f.push || s.service.Build != nil,
		Recreate: f.recreate || s.service.Ends, Ends: s.service.Ends,
	}
	w, err = a.followDeploy(ctx, a.progress(), true, func(on func(control.DeployEvent)) (control.Workload, error) { return c.Deploy(ctx, d, on) })
	return w, s.Action, err
}

// digestHere is the ID of an image of this machine; empty if it has none of that name.
// One that is not built is pushed for it, which sends nothing that the peer has.
func (a *app) digestHere(ctx context.Context, c *control.Client, peer string, spec mesh.Spec) string {
	if spec.Digest != "" {
		return spec.Digest
	}
	p := a.progress()
	defer p.clear()
	img, err := c.PushImage(ctx, control.PushImage{Peer: peer, Image: spec.Image}, func(ev control.ImageEvent) {
		if ev.Progress != nil {
			p.bytes(ev.Progress.What, ev.Progress.Done, ev.Progress.Total)
		}
	})
	if err != nil {
		return "" // the deploy tells why
	}
	return img.ID
}
