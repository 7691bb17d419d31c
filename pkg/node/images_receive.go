package node

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/driver"
	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
	"peercompute/pkg/oci"
	"peercompute/pkg/peernet"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file takes images that peers push. All that a peer says of one is held
// against digests, and its layers are taken only if it may have them.

// onPushImage judges an image by its description, and asks for what is missing.
func (n *Node) onPushImage(ctx context.Context, c *request.Call) (request.Reply, error) {
	p, err := announced(c.Body)
	if err != nil {
		return request.Reply{}, err
	}
	policy := n.policy(ctx)
	decide := func(tx *store.Tx) error { return n.decidePush(tx, policy, c.From, c.Grant, p.Image) }
	if err := n.m.Store.View(decide); err != nil {
		return request.Reply{}, err
	}
	d, err := n.engineImages()
	if err != nil {
		return request.Reply{}, err
	}
	if err := runsHere(ctx, d, p.Image); err != nil {
		return request.Reply{}, err
	}
	now := n.m.Now().UTC()
	p.Owner, p.Peer, p.State, p.Created, p.Touched = c.Grant.First(), c.From, imageArriving, now, now
	if have, err := n.imageHere(ctx, d, p); err != nil || have {
		return request.Reply{Body: wire.PushImageReply{Ref: p.ref(), Have: true}, Commit: n.touchImage(p)}, err
	}
	t, err := n.arrivals.take(ctx, p)
	if err != nil {
		return request.Reply{}, err
	}
	missing, err := n.missingParts(ctx, d, c.Grant, p)
	if err != nil {
		t.release()
		return request.Reply{}, err
	}
	return request.Reply{
		Body: wire.PushImageReply{Ref: p.ref(), Missing: missing},
		Commit: func(tx *store.Tx) error {
			if err := decide(tx); err != nil {
				return err
			}
			if was, ok, err := getImage(tx, p.Owner, p.Image.ID); err != nil {
				return err
			} else if ok {
				p.Created = was.Created
			}
			if err := putImage(tx, p); err != nil {
				return err
			}
			return n.noteImage(tx, c.From, "push-image", p.Image.ID, p.Name)
		},
		Cancel: t.release,
		Stream: func(ctx context.Context, s *peernet.Stream) error {
			defer t.release()
			stop := context.AfterFunc(t.ctx, s.Reset)
			defer stop()
			if err := n.receiveImage(ctx, s, p, missing); err != nil {
				return endWithError(s, err)
			}
			return frame.Write(deadlineWriter{s}, wire.FrameEnd, nil)
		},
	}, nil
}

// announced reads what a peer says of an image, and judges its form.
func announced(body []byte) (pushedImage, error) {
	var in wire.PushImage
	if err := wire.DecodeBody(body, &in); err != nil {
		return pushedImage{}, err
	}
	img := oci.Image{ID: in.ID, ConfigSize: in.ConfigSize, OS: in.OS, Arch: in.Arch}
	for _, l := range in.Layers {
		img.Layers = append(img.Layers, oci.Layer{Digest: l.Digest, Size: l.Size})
	}
	return pushedImage{Image: img, Name: forPeople(in.Name)}, img.Check(maxImage)
}

// decidePush asks the rules about what an image would add.
func (n *Node) decidePush(tx *store.Tx, policy admission.Policy, who mesh.PeerID, g trust.Grant, img oci.Image) error {
	policy, g, usage, err := n.weigh(tx, policy, who, g)
	if err != nil {
		return err
	}
	parts, _, _, count, err := imageDisk(tx, g.First())
	if err != nil {
		return err
	}
	_, known, err := getImage(tx, g.First(), img.ID)
	if err != nil {
		return err
	}
	if !known && count >= maxImages {
		return mesh.Errorf(mesh.Quota, "you have pushed %d images here, which is the most", count).
			WithRule("host.images").WithHint("remove those that no workload uses: peerctl image prune --peer NAME")
	}
	var more int64
	for _, p := range img.Parts() {
		if !parts[p] {
			more += p.Size
		}
	}
	return admission.DecidePush(policy, g, img.ID, more, usage).Refusal(who)
}

func runsHere(ctx context.Context, d driver.Images, img oci.Image) error {
	system, arch, err := d.Platform(ctx)
	if err != nil {
		return err
	}
	if img.OS != system || img.Arch != arch {
		return mesh.Errorf(mesh.Unsupported, "the image is for %s/%s; this machine runs %s/%s", img.OS, img.Arch, system, arch).
			WithRule("host.platform").WithHint("build it for %s/%s and push that", system, arch)
	}
	return nil
}

// imageHere reports whether the image can be run by its owner already.
func (n *Node) imageHere(ctx context.Context, d driver.Images, p pushedImage) (bool, error) {
	var known pushedImage
	err := n.m.Store.View(func(tx *store.Tx) (err error) {
		known, _, err = getImage(tx, p.Owner, p.Image.ID)
		return err
	})
	if err != nil || known.State != imageReady {
		return false, err
	}
	return d.Has(ctx, p.ref(), p.Image.ID)
}

func (n *Node) touchImage(p pushedImage) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		was, ok, err := getImage(tx, p.Owner, p.Image.ID)
		if err != nil {
			return err
		}
		if !ok || was.State != imageReady {
			return mesh.Errorf(mesh.Conflict, "the image is just being removed").WithRule("image.pushed").WithHint("try again in a moment")
		}
		was.Touched, was.Name = p.Touched, p.Name
		return putImage(tx, was)
	}
}

// missingParts are the parts that the owner must send. Layers of images that it may
// run here it need not: it could read them anyway.
func (n *Node) missingParts(ctx context.Context, d driver.Images, g trust.Grant, p pushedImage) ([]wire.MissingPart, error) {
	held, err := d.Held(ctx)
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for _, h := range held {
		if admission.MayUseLayers(g, h.ID, h.Names) {
			for _, l := range h.Layers {
				have[l] = true
			}
		}
	}
	out := []wire.MissingPart{}
	for _, part := range p.Image.Parts() {
		file := filepath.Join(n.spoolDir(p.Owner), oci.FileName(part.Digest))
		if have[part.Digest] {
			continue
		}
		if _, err := os.Stat(file); err == nil {
			continue
		}
		m := wire.MissingPart{Digest: part.Digest}
		if st, err := os.Stat(file + partial); err == nil && st.Size() < part.Size {
			m.Offset = st.Size()
		}
		out = append(out, m)
	}
	return out, nil
}

// receiveImage takes what is missing, and waits until the engine has the image.
func (n *Node) receiveImage(ctx context.Context, s *peernet.Stream, p pushedImage, missing []wire.MissingPart) error {
	if err := n.takeParts(deadlineReader{s}, p, missing); err != nil {
		return err
	}
	done := n.waits.add(p.key())
	err := n.m.Store.Update(ctx, func(tx *store.Tx) error {
		now, ok, err := getImage(tx, p.Owner, p.Image.ID)
		if err != nil {
			return err
		}
		if !ok || now.State != imageArriving {
			return mesh.Errorf(mesh.Canceled, "the image was removed while it arrived")
		}
		now.State = imageArrived
		return putImage(tx, now)
	})
	if err != nil {
		n.waits.tell(p.key(), err)
		return err
	}
	signal(n.imageWake)
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// takeParts writes what comes to the spool. A part gets its name once it is whole
// and is what it should be.
func (n *Node) takeParts(r io.Reader, p pushedImage, missing []wire.MissingPart) error {
	dir := n.spoolDir(p.Owner)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	sizes := map[string]int64{}
	for _, part := range p.Image.Parts() {
		sizes[part.Digest] = part.Size
	}
	if len(missing) == 0 {
		return nil
	}
	in, err := gzip.NewReader(bufio.NewReaderSize(r, 64<<10))
	if err != nil {
		return mesh.Errorf(mesh.Unavailable, "the connection was lost while the image was sent").Because(err)
	}
	in.Multistream(false) // its end is not that of the connection
	for _, m := range missing {
		part := oci.Layer{Digest: m.Digest, Size: sizes[m.Digest]}
		if err := takePart(in, dir, part, m.Offset); err != nil {
			return err
		}
		if err := checkPart(dir, p.Image, part); err != nil {
			return err
		}
	}
	if extra, err := io.CopyN(io.Discard, in, 1); extra != 0 || !errors.Is(err, io.EOF) {
		return mesh.Errorf(mesh.Forged, "more was sent than was asked for").WithRule("image.size")
	}
	return nil
}

func takePart(r io.Reader, dir string, part oci.Layer, offset int64) error {
	f, err := os.OpenFile(filepath.Join(dir, oci.FileName(part.Digest)+partial), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(offset); err != nil {
		return err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.Copy(onlyWriter{f}, &exactly{r: r, left: part.Size - offset}); err != nil {
		if mesh.KindOf(err) == mesh.Overloaded { // the disk is full
			return err
		}
		return mesh.Errorf(mesh.Unavailable, "the connection was lost while the image was sent").
			WithHint("push it again: it goes on where it broke off").Because(err)
	}
	return errors.Join(f.Sync(), f.Close())
}

// onlyWriter hides what would let the reader decide how much is read at once.
type onlyWriter struct{ io.Writer }

// checkPart names a part for good, or removes it.
func checkPart(dir string, img oci.Image, part oci.Layer) error {
	file := filepath.Join(dir, oci.FileName(part.Digest))
	f, err := os.Open(file + partial)
	if err != nil {
		return err
	}
	defer f.Close()
	if part.Digest == img.ID {
		var config []byte
		if config, err = io.ReadAll(io.LimitReader(f, oci.MaxConfig+1)); err == nil {
			err = oci.CheckConfig(config, img)
		}
	} else {
		err = oci.CheckLayer(f, part)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file+partial))
	}
	return os.Rename(file+partial, file)
}

// forPeople is what a peer calls something, fit to be shown.
func forPeople(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), 200)]
}

// arrivals are the images that are being received: one of each owner at a time.
type arrivals struct {
	mu  sync.Mutex
	now map[mesh.PeerID]*arrival
}

type arrival struct {
	a       *arrivals
	owner   mesh.PeerID
	id      string
	ctx     context.Context // ends when another attempt takes its place
	cancel  context.CancelFunc
	release func()
	done    chan struct{}
}

// supersede is how long an attempt has to end that another one replaces.
const supersede = 10 * time.Second

// take begins to receive an image. An earlier attempt at the same one is ended: its
// connection may be dead without anybody having noticed.
func (a *arrivals) take(ctx context.Context, p pushedImage) (*arrival, error) {
	ctx, cancel := context.WithTimeout(ctx, supersede)
	defer cancel()
	for {
		a.mu.Lock()
		if a.now == nil {
			a.now = map[mesh.PeerID]*arrival{}
		}
		before := a.now[p.Owner]
		if before == nil {
			t := &arrival{a: a, owner: p.Owner, id: p.Image.ID, done: make(chan struct{})}
			t.ctx, t.cancel = context.WithCancel(context.Background())
			t.release = sync.OnceFunc(t.end)
			a.now[p.Owner] = t
			a.mu.Unlock()
			return t, nil
		}
		a.mu.Unlock()
		if before.id != p.Image.ID {
			return nil, mesh.Errorf(mesh.Overloaded, "another image of yours is just being received").
				WithRule("image.one-at-a-time").WithHint("try again once it is there")
		}
		before.cancel()
		select {
		case <-before.done:
		case <-ctx.Done():
			return nil, mesh.Errorf(mesh.Overloaded, "this image is just being received").WithRule("image.one-at-a-time").WithHint("try again in a moment")
		}
	}
}

// busy reports whether the image is just being received.
func (a *arrivals) busy(p pushedImage) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.now[p.Owner]
	return t != nil && t.id == p.Image.ID
}

func (t *arrival) end() {
	t.cancel()
	t.a.mu.Lock()
	delete(t.a.now, t.owner)
	t.a.mu.Unlock()
	close(t.done)
}

func (n *Node) onImages(_ context.Context, c *request.Call) (request.Reply, error) {
	images, used, err := n.imagesOf(c.From, c.Grant)
	out := wire.ImagesReply{Images: []wire.PushedImage{}}
	for _, p := range images {
		out.Images = append(out.Images, showImage(p, used[p.ref()]))
	}
	return request.Reply{Body: out}, err
}

func (n *Node) onPrune(_ context.Context, c *request.Call) (request.Reply, error) {
	// What goes is told as it is now; the transaction decides anew.
	images, used, err := n.imagesOf(c.From, c.Grant)
	out := wire.PruneReply{Images: []wire.PushedImage{}}
	for _, p := range images {
		if used[p.ref()] == 0 && !n.arrivals.busy(p) {
			out.Images = append(out.Images, showImage(p, 0))
		}
	}
	var gone []pushedImage
	ch := n.prune(c.From, c.Grant, &gone)
	return request.Reply{Body: out, Commit: ch.commit, After: ch.after}, err
}

// onFindImage tells whether a deploy would find an image. Of one that the asker may
// not run it says nothing.
func (n *Node) onFindImage(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.FindImage
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	spec := mesh.Spec{Name: "x", Runtime: mesh.Container, Image: in.Image, Digest: in.Digest}
	if err := spec.Validate(); err != nil {
		return request.Reply{}, err
	}
	var out wire.FindImageReply
	d, err := n.engineImages()
	if err != nil || !admission.DecideImage(c.Grant, spec).Allow {
		return request.Reply{Body: out}, nil
	}
	if out.Here, err = d.Has(ctx, in.Image, in.Digest); err == nil && !out.Here {
		out.Pullable, err = d.Pullable(ctx, in.Image)
	}
	return request.Reply{Body: out}, err
}
