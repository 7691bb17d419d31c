package node

import (
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/oci"
	"peercompute/pkg/wire"
)

// This file gives images of this machine to peers.

// pushes lets one image at a time go to each peer.
type pushes struct {
	mu    sync.Mutex
	busy  map[mesh.PeerID]chan struct{}
	found map[foundImage]time.Time // what peers had, and until when they need not be asked again
}

type foundImage struct {
	peer          mesh.PeerID
	image, digest string
}

const (
	foundFor = time.Minute
	maxFound = 1024
)

// known reports whether the peer said of late that it finds the image.
func (p *pushes) known(f foundImage, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Before(p.found[f])
}

func (p *pushes) learn(f foundImage, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found == nil || len(p.found) >= maxFound {
		p.found = map[foundImage]time.Time{}
	}
	p.found[f] = now.Add(foundFor)
}

func (p *pushes) lock(ctx context.Context, to mesh.PeerID) (unlock func(), err error) {
	for {
		p.mu.Lock()
		if p.busy == nil {
			p.busy = map[mesh.PeerID]chan struct{}{}
		}
		wait, taken := p.busy[to]
		if !taken {
			done := make(chan struct{})
			p.busy[to] = done
			p.mu.Unlock()
			return func() {
				p.mu.Lock()
				delete(p.busy, to)
				p.mu.Unlock()
				close(done)
			}, nil
		}
		p.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// How often a push is tried again that a lost connection cut.
const (
	pushTries = 5 // in a row without a byte more
	pushPause = time.Second
)

// sentImage is what came of a push.
type sentImage struct {
	ref  string // what it is called there
	img  oci.Image
	sent int64 // bytes of parts that crossed the wire, compressed
	have bool  // it was there already
}

// pushImage gives an image of this machine to p, as far as p lacks it.
func (n *Node) pushImage(ctx context.Context, p mesh.PeerID, name string, progress func(mesh.Progress)) (sentImage, error) {
	d, err := n.engineImages()
	if err != nil {
		return sentImage{}, err
	}
	unlock, err := n.pushes.lock(ctx, p)
	if err != nil {
		return sentImage{}, err
	}
	defer unlock()
	out := filepath.Join(n.imagesDir(), "out")
	if err := os.MkdirAll(out, 0o700); err != nil {
		return sentImage{}, err
	}
	dir, err := os.MkdirTemp(out, "")
	if err != nil {
		return sentImage{}, err
	}
	defer os.RemoveAll(dir)
	var img oci.Image
	err = meanwhile(progress, "saving "+name, func() (err error) {
		img, err = d.Export(ctx, name, dir)
		return err
	})
	if err != nil {
		return sentImage{}, err
	}
	res := sentImage{img: img}
	for tries := 0; ; {
		before := res.sent
		err := n.pushOnce(ctx, p, name, dir, &res, progress)
		if err == nil {
			return res, nil
		}
		if res.sent > before {
			tries = 0
		}
		if tries++; tries >= pushTries || mesh.KindOf(err) != mesh.Unavailable || ctx.Err() != nil {
			return res, err
		}
		n.log.Info("a push was cut and goes on", "peer", p, "image", img.ID, "err", err)
		t := time.NewTimer(pushPause << (tries - 1))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return res, ctx.Err()
		}
	}
}

// pushOnce makes one attempt. What an earlier one brought over is there.
func (n *Node) pushOnce(ctx context.Context, p mesh.PeerID, name, dir string, res *sentImage, progress func(mesh.Progress)) error {
	img := res.img
	ask := wire.PushImage{ID: img.ID, ConfigSize: img.ConfigSize, OS: img.OS, Arch: img.Arch, Layers: []wire.ImagePart{}, Name: forPeople(name)}
	for _, l := range img.Layers {
		ask.Layers = append(ask.Layers, wire.ImagePart(l))
	}
	var reply wire.PushImageReply
	s, err := n.m.Client.Open(ctx, p, wire.VerbPushImage, ask, &reply)
	if err != nil {
		return n.elsewhere(p, err)
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, s.Reset)()
	if _, id, ok := mesh.ParsePushed(reply.Ref); !ok || id != img.ID {
		return mesh.Errorf(mesh.Forged, "%s calls the image by another name than its digest", n.m.Trust.Name(p)).WithRule("image.ref")
	}
	res.ref, res.have = reply.Ref, reply.Have
	if reply.Have {
		return nil
	}
	parts, total, err := partsToSend(img, reply.Missing)
	if err != nil {
		return err
	}
	// The peer may refuse while it is still being sent to.
	end := make(chan error, 1)
	go func() {
		err := readEnd(s)
		if err != nil {
			s.Reset()
		}
		end <- err
	}()
	if len(parts) > 0 {
		counted := &countedWriter{w: deadlineWriter{s}, n: &res.sent}
		meter := &metered{total: total, report: progress, what: "sending " + name}
		if err := sendParts(counted, dir, parts, meter); err != nil {
			t := time.AfterFunc(lastWord, s.Reset)
			defer t.Stop()
			if said := <-end; said != nil {
				return n.elsewhere(p, said) // which is why it broke off
			}
			return n.elsewhere(p, mesh.Errorf(mesh.Unavailable, "the connection was lost while the image was sent").Because(err))
		}
	}
	return n.elsewhere(p, meanwhile(progress, n.m.Trust.Name(p)+" is unpacking "+name, func() error { return <-end }))
}

// meanwhile reports a step again and again while it is done, whose length nobody knows.
func meanwhile(progress func(mesh.Progress), what string, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	t := time.NewTicker(stepEach)
	defer t.Stop()
	for {
		progress(mesh.Progress{What: what})
		select {
		case err := <-done:
			return err
		case <-t.C:
		}
	}
}

const stepEach = 500 * time.Millisecond

// lastWord is how long a peer that takes no more has to say why.
const lastWord = 5 * time.Second

// part is what is left to send of one file.
type part struct {
	oci.Layer
	offset int64
}

// partsToSend reads what a peer asks for, which can only be parts of the image.
func partsToSend(img oci.Image, missing []wire.MissingPart) (out []part, total int64, err error) {
	known := map[string]oci.Layer{}
	for _, p := range img.Parts() {
		known[p.Digest] = p
	}
	for _, m := range missing {
		l, ok := known[m.Digest]
		if !ok || m.Offset < 0 || m.Offset > l.Size {
			return nil, 0, mesh.Errorf(mesh.Forged, "what was asked for is no part of the image").WithRule("image.parts")
		}
		delete(known, m.Digest) // once
		out = append(out, part{l, m.Offset})
		total += l.Size - m.Offset
	}
	return out, total, nil
}

// sendParts writes one gzip stream of what is left of each part.
func sendParts(w io.Writer, dir string, parts []part, meter *metered) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := sendPart(z, dir, p, meter); err != nil {
			return err
		}
	}
	return z.Close()
}

func sendPart(w io.Writer, dir string, p part, meter *metered) error {
	f, err := os.Open(filepath.Join(dir, oci.FileName(p.Digest)))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(p.offset, io.SeekStart); err != nil {
		return err
	}
	meter.r = f
	_, err = io.Copy(onlyWriter{w}, onlyReader{&exactly{r: meter, left: p.Size - p.offset}})
	return err
}

type onlyReader struct{ io.Reader }

type countedWriter struct {
	w io.Writer
	n *int64
}

func (c *countedWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	*c.n += int64(n)
	return n, err
}

// bringImage makes sure that p finds the image of spec. With push it is sent in any
// case; else if p neither has it nor can pull it, and this machine has it.
func (n *Node) bringImage(ctx context.Context, p mesh.PeerID, spec mesh.Spec, push bool, progress func(mesh.Progress)) (mesh.Spec, error) {
	if spec.Runtime != mesh.Container || p == n.m.Key.ID || mesh.IsPushed(spec.Image) {
		return spec, nil
	}
	if !push && !n.onlyHere(ctx, p, spec) {
		return spec, nil
	}
	sent, err := n.pushImage(ctx, p, spec.Image, progress)
	if err != nil {
		if e := mesh.AsError(err); !push && e.Rule == "grant.images" {
			return spec, nil // the deploy itself is refused, in terms of what was asked for
		}
		return spec, err
	}
	if spec.Digest != "" && spec.Digest != sent.img.ID {
		return spec, mesh.Errorf(mesh.Denied, "the image %s here is not the one pinned by %s", spec.Image, spec.Digest)
	}
	spec.Image, spec.Digest = sent.ref, sent.img.ID
	return spec, nil
}

// onlyHere reports whether this machine has an image that p could not come by. On
// doubt it is left to the deploy to say what is wrong.
func (n *Node) onlyHere(ctx context.Context, p mesh.PeerID, spec mesh.Spec) bool {
	f := foundImage{p, spec.Image, spec.Digest}
	if n.pushes.known(f, time.Now()) {
		return false
	}
	d, err := n.engineImages()
	if err != nil {
		return false
	}
	if have, err := d.Has(ctx, spec.Image, spec.Digest); err != nil || !have {
		return false
	}
	var there wire.FindImageReply
	err = n.ask(ctx, p, wire.VerbFindImage, wire.FindImage{Image: spec.Image, Digest: spec.Digest}, &there)
	if err == nil && there.Here {
		n.pushes.learn(f, time.Now())
	}
	return err == nil && !there.Here && !there.Pullable
}

// clearOutgoing removes what a crash left of images that were being sent.
func (n *Node) clearOutgoing() error { return os.RemoveAll(filepath.Join(n.imagesDir(), "out")) }
