package node

import (
	"context"

	"peercompute/pkg/compose"
	"peercompute/pkg/control"
)

// ReadCompose makes workloads of a Compose file. That is the node's to do, and not
// peerctl's, because the library which reads them takes 10 ms to load.
func (a *api) ReadCompose(ctx context.Context, f control.ComposeFile) (control.ComposeProject, error) {
	p, needs, err := compose.Load(ctx, compose.Input{Name: f.Name, Dir: f.Dir, Text: f.Text, Files: f.Files, Environ: f.Environ, Profiles: f.Profiles})
	out := control.ComposeProject{Name: p.Name, Services: []control.ComposeService{}, Needs: needs}
	for _, s := range p.Services {
		c := control.ComposeService{Spec: s.Spec, Ends: s.Ends, Notes: s.Notes}
		if b := s.Build; b != nil {
			c.Build = &control.Build{Dir: b.Dir, Inline: b.Inline, BuildOptions: control.BuildOptions{Dockerfile: b.Dockerfile, Target: b.Target, Args: b.Args}}
		}
		out.Services = append(out.Services, c)
	}
	for _, s := range p.Secrets {
		out.Secrets = append(out.Secrets, control.ComposeSecret{Name: s.Name, File: s.File})
	}
	return out, err
}
