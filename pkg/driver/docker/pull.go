package docker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/docker/docker/client"

	api "github.com/docker/docker/api/types/image"

	"peercompute/pkg/mesh"
)

// progressEvery is the least time between two reports of progress.
const progressEvery = 250 * time.Millisecond

// pullImage fetches the image and finds it, if why, the error of looking for it,
// allows. Several that want the same wait for one pull and then find it there.
func (d *Driver) pullImage(ctx context.Context, e engine, ref imageRef, digest string, why error, progress func(mesh.Progress)) (image, error) {
	kind := mesh.KindOf(why)
	if kind != mesh.NotFound && kind != mesh.Denied {
		return image{}, why
	}
	if ref.name == nil {
		return image{}, mesh.AsError(why).WithHint("an image ID cannot be pulled: name the image by repository and tag, or put it on that machine with docker load")
	}
	if mesh.IsPushed(ref.text) {
		return image{}, mesh.AsError(why).WithHint("push the image again: peerctl deploy … --push")
	}
	progress(mesh.Progress{What: "pulling " + ref.text})
	unlock, err := d.pulls.lock(ctx, ref.text)
	if err != nil {
		return image{}, d.fail(err, "pull the image")
	}
	defer unlock()
	if img, err := d.findImage(ctx, e, ref, digest); err == nil {
		return img, nil
	}
	// A pin may be a manifest's digest, which a registry can be asked for, or an
	// image ID, which it cannot: then the reference is pulled and compared.
	if pin, ok := ref.withDigest(digest); ok {
		if err := d.pull(ctx, pin, progress); err == nil {
			return d.findImage(ctx, e, ref, digest)
		} else if mesh.KindOf(err) != mesh.NotFound {
			return image{}, err
		}
		if kind == mesh.Denied { // no deployer moves a tag that is here already
			return image{}, why
		}
	}
	if err := d.pull(ctx, ref, progress); err != nil {
		return image{}, err
	}
	return d.findImage(ctx, e, ref, digest)
}

// pull fetches one reference and reports how far it has come.
func (d *Driver) pull(ctx context.Context, ref imageRef, progress func(mesh.Progress)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := d.cli.ImagePull(ctx, ref.name.String(), api.PullOptions{})
	if err == nil {
		err = d.follow(body, ref, progress)
		body.Close()
	}
	if err == nil {
		err = d.refuseLarge(ctx, ref)
	}
	var ours *mesh.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ours):
		return ours
	case ctx.Err() != nil:
		return d.fail(ctx.Err(), "pull the image")
	case client.IsErrConnectionFailed(err):
		return d.fail(err, "pull the image")
	}
	return mesh.Errorf(mesh.NotFound, "the image %s is not on this machine and could not be pulled", ref.text).
		WithHint("check the name, and that this machine reaches the registry; or put it there by hand: docker load").Because(err)
}

// pullMessage is one line of the engine's report of a pull.
type pullMessage struct {
	ID             string `json:"id"` // the layer
	ProgressDetail struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
	Status string `json:"status"`
	Error  string `json:"error"`
}

// follow reads the report to its end: that is when the pull is over.
func (d *Driver) follow(report io.Reader, ref imageRef, progress func(mesh.Progress)) error {
	type layer struct{ done, total int64 }
	layers := map[string]layer{}
	var last time.Time
	in := json.NewDecoder(report)
	for {
		var m pullMessage
		if err := in.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if m.Error != "" {
			return errors.New(clip(m.Error, 500))
		}
		if m.Status != "Downloading" || m.ProgressDetail.Total < 0 {
			continue
		}
		layers[m.ID] = layer{m.ProgressDetail.Current, m.ProgressDetail.Total}
		p := mesh.Progress{What: "pulling " + ref.text}
		for _, l := range layers {
			p.Done += l.done
			p.Total += l.total
		}
		if p.Done > d.maxImage || p.Total > d.maxImage {
			return d.tooLarge(ref)
		}
		if now := d.now(); now.Sub(last) >= progressEvery {
			last = now
			progress(p)
		}
	}
}

// refuseLarge removes an image again that unpacked to more than is allowed.
func (d *Driver) refuseLarge(ctx context.Context, ref imageRef) error {
	got, err := d.inspectImage(ctx, ref.text)
	if err != nil || got.Size <= d.maxImage {
		return err
	}
	if _, err := d.cli.ImageRemove(ctx, ref.text, api.RemoveOptions{PruneChildren: true}); err != nil {
		d.log.Warn("cannot remove an image that is too large", "image", ref.text, "err", err)
	}
	return d.tooLarge(ref)
}

func (d *Driver) tooLarge(ref imageRef) *mesh.Error {
	return mesh.Errorf(mesh.TooLarge, "the image %s is larger than the %s this machine takes", ref.text, bytesText(d.maxImage))
}

// keyLock is a lock per key that gives up with the context. The zero value is
// ready.
type keyLock struct {
	mu   sync.Mutex
	held map[string]*holders
}

type holders struct {
	token chan struct{} // holds one element while nobody has the lock
	users int
}

// lock waits for the key's lock and returns what releases it.
func (k *keyLock) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*holders{}
	}
	h := k.held[key]
	if h == nil {
		h = &holders{token: make(chan struct{}, 1)}
		h.token <- struct{}{}
		k.held[key] = h
	}
	h.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if h.users--; h.users == 0 {
			delete(k.held, key)
		}
	}
	select {
	case <-h.token:
		return func() { h.token <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
