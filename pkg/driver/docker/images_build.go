package docker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"

	api "github.com/docker/docker/api/types/build"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

var _ driver.Builder = (*Driver)(nil)

// buildMessage is one line of the engine's report of a build.
type buildMessage struct {
	Stream string `json:"stream"`
	Error  string `json:"error"`
	Aux    struct {
		ID string `json:"ID"`
	} `json:"aux"`
}

// Build builds a directory with the engine's own builder.
func (d *Driver) Build(ctx context.Context, dir io.Reader, o driver.BuildOptions, log io.Writer) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	if _, err := d.knowEngine(ctx); err != nil {
		return "", err
	}
	args := map[string]*string{}
	for k, v := range o.Args {
		args[k] = &v
	}
	resp, err := d.cli.ImageBuild(ctx, dir, api.ImageBuildOptions{
		Version: api.BuilderV1, Remove: true, ForceRemove: true, Dockerfile: o.Dockerfile, Target: o.Target, BuildArgs: args,
	})
	if err != nil {
		return "", d.failBuild(ctx, err)
	}
	defer resp.Body.Close()
	id := ""
	for in := json.NewDecoder(resp.Body); ; {
		var m buildMessage
		if err := in.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return "", d.failBuild(ctx, err)
		}
		if m.Error != "" {
			return "", mesh.Errorf(mesh.Invalid, "the image could not be built: %s", clip(m.Error, 500)).WithHint("see what the build said above")
		}
		if mesh.ValidDigest(m.Aux.ID) {
			id = m.Aux.ID
		}
		if strings.TrimSpace(m.Stream) != "" {
			if _, err := io.WriteString(log, m.Stream); err != nil {
				return "", err
			}
		}
	}
	if id == "" {
		return "", mesh.Errorf(mesh.Unsupported, "the container engine does not say which image it built")
	}
	return id, nil
}

func (d *Driver) failBuild(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return d.fail(ctx.Err(), "build the image")
	}
	e := d.fail(err, "build the image")
	if e.Kind == mesh.Internal || e.Kind == mesh.Invalid { // it is this machine's person who asked
		e.Msg = "the image could not be built: " + clip(err.Error(), 500)
		e.Kind = mesh.Invalid
	}
	return e
}
