// Package compose reads the common part of Compose files as workloads: what it does
// not know it refuses by name, all of it at once, rather than leave it out without a
// word. It deploys nothing.
package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v3"

	"peercompute/pkg/mesh"
)

const (
	maxServices = 50
	maxDepth    = 100 // of a document, in which a tag is looked for
)

// Project is what a file describes.
type Project struct {
	Name     string
	Services []Service // each after those that it depends on
	Secrets  []Secret  // to be kept at the peer before the services start
}

// Service is one workload of it.
type Service struct {
	Spec  mesh.Spec // a container's; Image is empty where Build is set
	Build *Build    // nil = it has an image
	Ends  bool      // others start once it has ended, and well
	Notes []string  // what of it is otherwise than the file says, for people
}

// Input is a Compose file and what it refers to. Nothing else is read.
type Input struct {
	Name    string            // for messages
	Dir     string            // where the file is, absolute: paths in it are relative to that
	Text    []byte            // of the file
	Files   map[string][]byte // .env, and the environment files that it names, by their path as it names them
	Environ []string          // KEY=VALUE; counts over .env

	Profiles []string // of services that have any, those to deploy
}

// Load reads a file. Where it names environment files that are not in Files, their
// paths are returned and nothing else. The error lists every problem.
func Load(ctx context.Context, in Input) (p Project, needs []string, err error) {
	refuse := func(problems ...string) (Project, []string, error) {
		return Project{}, nil, mesh.Errorf(mesh.Invalid, "%s cannot be deployed: %s", in.Name, strings.Join(problems, "; ")).WithRule("compose.subset").
			WithHint("leave out or change what is named")
	}
	raw, err := decode(in.Text)
	if err != nil {
		return refuse(err.Error())
	}
	ofServices, problems := problemsOf(raw)
	env := types.NewMapping(in.Environ)
	if said, err := dotenv.ParseWithLookup(bytes.NewReader(in.Files[".env"]), env.Resolve); err != nil {
		problems = append(problems, ".env: "+err.Error())
	} else {
		env = env.Merge(said) // what env has already stays
	}
	details := types.ConfigDetails{WorkingDir: in.Dir, ConfigFiles: []types.ConfigFile{{Filename: in.Name, Config: raw}}, Environment: env}
	loaded, err := loader.LoadWithContext(ctx, details, func(o *loader.Options) {
		o.SkipInclude = true            // a file stands for itself
		o.SkipResolveEnvironment = true // reads files
		o.Profiles = in.Profiles
		o.SetProjectName(projectName(raw, in.Dir), true)
	})
	if err != nil {
		for _, bad := range ofServices {
			problems = append(problems, bad...)
		}
		slices.Sort(problems)
		return refuse(append(problems, strings.ReplaceAll(err.Error(), "\n", " "))...)
	}
	p.Name = loaded.Name
	order, err := inOrder(loaded)
	if err != nil {
		problems = append(problems, err.Error())
	}
	f := file{project: p.Name, egress: loaded.Extensions["x-egress"], ends: map[string]bool{}}
	var bad []string
	f.volumes, bad = namedVolumes(loaded)
	problems = append(problems, bad...)
	problems = append(problems, oneUser(loaded)...)
	f.networks, bad = namedNetworks(loaded)
	problems = append(problems, bad...)
	p.Secrets, f.secrets, bad = namedSecrets(loaded)
	problems = append(problems, bad...)
	for _, s := range loaded.Services {
		for on, d := range s.DependsOn {
			f.ends[on] = f.ends[on] || d.Condition == types.ServiceConditionCompletedSuccessfully
		}
	}
	all := taken{}
	for _, name := range order {
		c := loaded.Services[name]
		more, missing, bad := variables(in, env, c)
		needs, problems = append(needs, missing...), append(problems, bad...)
		c.Environment = more
		s, bad := f.service(c)
		problems = slices.Concat(problems, bad, ofServices[name], all.name("the services", name, s.Spec.Name))
		p.Services = append(p.Services, s)
	}
	switch {
	case len(loaded.Services) == 0:
		problems = append(problems, noServices(loaded))
	case len(loaded.Services) > maxServices:
		problems = append(problems, fmt.Sprintf("it has more than %d services", maxServices))
	}
	if len(problems) > 0 {
		slices.Sort(problems)
		return refuse(slices.Compact(problems)...)
	}
	if len(needs) > 0 {
		slices.Sort(needs)
		return Project{}, slices.Compact(needs), nil
	}
	return p, nil, nil
}

// variables are the environment of a service: its files, and over them what it says
// itself. A name without a value takes the caller's.
func variables(in Input, env types.Mapping, s types.ServiceConfig) (out types.MappingWithEquals, missing, bad []string) {
	out = types.MappingWithEquals{}
	for _, f := range s.EnvFiles {
		path := f.Path
		if rel, err := filepath.Rel(in.Dir, path); err == nil && filepath.IsAbs(path) {
			path = rel
		}
		text, ok := in.Files[path]
		switch {
		case !ok:
			missing = append(missing, path)
			continue
		case text == nil && !bool(f.Required):
			continue
		case text == nil:
			bad = append(bad, fmt.Sprintf("services.%s: %s is not there", s.Name, path))
			continue
		}
		said, err := dotenv.ParseWithLookup(bytes.NewReader(text), env.Resolve)
		if err != nil {
			bad = append(bad, fmt.Sprintf("%s: %v", path, err))
		}
		for k, v := range said {
			out[k] = &v
		}
	}
	for k, v := range s.Environment {
		if v == nil {
			if theirs, ok := env.Resolve(k); ok {
				v = &theirs
			}
		}
		out[k] = v
	}
	return out, missing, bad
}

// decode reads one YAML document that is a mapping.
func decode(data []byte) (map[string]any, error) {
	var raw map[string]any
	var doc yaml.Node
	err := yaml.Unmarshal(data, &doc)
	if err == nil && doc.Kind != 0 {
		if tag := ownTag(&doc, 0); tag != "" {
			return nil, fmt.Errorf("the tag %s is not supported (%s)", tag, oneFile)
		}
		err = doc.Decode(&raw)
	}
	if err != nil {
		return nil, errors.New(strings.ReplaceAll(err.Error(), "\n", " "))
	}
	if raw == nil {
		return nil, errors.New("it is empty")
	}
	return raw, nil
}

// problemsOf names what the file says that is not known here, of each service and of the
// rest, and takes out what would have other files read.
func problemsOf(raw map[string]any) (ofServices map[string][]string, rest []string) {
	ofServices = map[string][]string{}
	services, _ := raw["services"].(map[string]any)
	for name, said := range services {
		ofServices[name] = unknown(said, known["services"]["*"], "services."+name)
		s, _ := said.(map[string]any)
		delete(s, "label_file")
		if e, ok := s["extends"].(map[string]any); ok && e["file"] != nil {
			delete(s, "extends")
		}
	}
	others := maps.Clone(raw)
	delete(others, "services")
	rest = unknown(others, known, "")
	delete(raw, "version") // says nothing any more
	return ofServices, rest
}

// noServices says why nothing is to be deployed.
func noServices(p *types.Project) string {
	var profiles []string
	for _, s := range p.DisabledServices {
		profiles = append(profiles, s.Profiles...)
	}
	if len(profiles) == 0 {
		return "it has no services"
	}
	slices.Sort(profiles)
	return "all its services are of profiles that were not asked for: --profile " + strings.Join(slices.Compact(profiles), ", ")
}

// ownTag is a tag that is not of YAML itself, as Compose's !reset is one: what it asks
// for is lost once the document is decoded.
func ownTag(n *yaml.Node, depth int) string {
	if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		return n.Tag
	}
	if depth > maxDepth {
		return ""
	}
	for _, c := range n.Content { // an alias has none: what it stands for is elsewhere
		if tag := ownTag(c, depth+1); tag != "" {
			return tag
		}
	}
	return ""
}

// projectName is what the file calls itself, or its directory, as a label.
func projectName(raw map[string]any, dir string) string {
	name, _ := raw["name"].(string)
	if name == "" {
		name = filepath.Base(dir)
	}
	name = loader.NormalizeProjectName(name)
	name = strings.Trim(strings.ReplaceAll(name, "_", "-"), "-")
	if len(name) > mesh.MaxName {
		name = strings.Trim(name[:mesh.MaxName], "-")
	}
	if name == "" {
		name = "compose"
	}
	return name
}

// inOrder lists the services, each behind those that it depends on, else by name.
func inOrder(p *types.Project) (order []string, err error) {
	const walking, done = 1, 2
	state := map[string]int{}
	var visit func(name string) error
	visit = func(name string) error {
		switch state[name] {
		case done:
			return nil
		case walking:
			return fmt.Errorf("services.%s depends on itself", name)
		}
		state[name] = walking
		for _, on := range slices.Sorted(slices.Values(p.Services[name].GetDependencies())) {
			if _, ok := p.Services[on]; !ok && !p.Services[name].DependsOn[on].Required {
				continue
			} else if !ok {
				return fmt.Errorf("services.%s depends on %s, which is not there", name, on)
			}
			if err := visit(on); err != nil {
				return err
			}
		}
		state[name] = done
		order = append(order, name)
		return nil
	}
	for _, name := range slices.Sorted(slices.Values(p.ServiceNames())) {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}
