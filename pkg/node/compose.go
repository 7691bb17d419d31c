package node

import (
	"context"

	"peercompute/pkg/compose"
	"peercompute/pkg/control"
)

// ReadCompose makes workloads of a Compose file. That is the node's to do, and not
// peerctl's, because the library which reads them takes 10 ms to load.
func (a *api) ReadCompose(ctx context.Context, f control.ComposeFile) (control.ComposeProject, error) {
	p, needs, err := compose.Load(ctx, compose.Input{Name: f.Name, Dir: f.Dir, Text: f.Text, Files: f.Files, Environ: f.Environ})
	out := control.ComposeProject{Name: p.Name, Services: []control.ComposeService{}, Needs: needs}
	for _, s := range p.Services {
		out.Services = append(out.Services, control.ComposeService{Spec: s.Spec, Build: s.Build})
	}
	for _, s := range p.Secrets {
		out.Secrets = append(out.Secrets, control.ComposeSecret{Name: s.Name, File: s.File})
	}
	return out, err
}
