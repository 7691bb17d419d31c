package compose

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

// Files of the shapes that people have, each beside what is made of it, or why not.
func TestFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in := Input{Name: name + ".yaml", Dir: "/srv/" + name, Text: text, Environ: []string{"VERSION=7", "DEBUG=1"}, Files: map[string][]byte{
				"defaults.env": []byte("A=1\n"), "local.env": nil, "web.env": []byte("FROM_FILE=yes\n"),
			}}
			got := describe(Load(context.Background(), in))
			if name == "profiles" {
				in.Profiles = []string{"debug"}
				got += "with debug\n" + describe(Load(context.Background(), in))
			}
			want, err := os.ReadFile("testdata/" + name + ".want")
			if err != nil || got != string(want) {
				t.Errorf("%v; got\n%s", err, got)
			}
		})
	}
}

func describe(p Project, needs []string, err error) string {
	var b strings.Builder
	if err != nil {
		for _, line := range strings.Split(err.Error(), "; ") {
			fmt.Fprintln(&b, line)
		}
	}
	for _, n := range needs {
		fmt.Fprintln(&b, "needs", n)
	}
	for _, s := range p.Secrets {
		fmt.Fprintf(&b, "secret %s from %s\n", s.Name, s.File)
	}
	for _, s := range p.Services {
		v := s.Spec
		fmt.Fprintf(&b, "%s", v.Name)
		say := func(what string, v any) {
			if text := fmt.Sprint(v); text != "" && text != "[]" && text != "0" && text != "false" {
				fmt.Fprintf(&b, " %s=%s", what, text)
			}
		}
		say("image", v.Image)
		if s.Build != nil {
			fmt.Fprintf(&b, " build=%q", *s.Build)
		}
		say("project", v.Project)
		say("networks", v.AllNetworks())
		say("aliases", v.Aliases)
		say("port", v.Port)
		say("public", v.Publish != nil)
		say("egress", v.Egress)
		say("hosts", v.Hosts)
		say("ends", s.Ends)
		say("restart", v.Restart)
		say("entrypoint", v.Entrypoint)
		say("args", v.Args)
		say("dir", v.WorkDir)
		say("env", v.Env)
		say("volumes", v.Volumes)
		say("tmpfs", v.Tmpfs)
		say("secrets", v.Secrets)
		if h := v.Health; h != nil {
			say("health", fmt.Sprint(*h, " every ", h.Interval, " within ", h.Timeout))
		}
		if v.Resources != (mesh.Resources{}) {
			say("limits", fmt.Sprintf("%+v", v.Resources))
		}
		b.WriteByte('\n')
		for _, n := range s.Notes {
			fmt.Fprintf(&b, "  %s\n", n)
		}
	}
	return b.String()
}
