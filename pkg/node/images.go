package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/audit"
	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/oci"
	"peercompute/pkg/store"
	"peercompute/pkg/supervisor"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file is what is known here of images that peers pushed. A handler only
// records what is to become of one; the keeper at its end does it.

// imageState is how far an image has come.
type imageState string

const (
	imageArriving imageState = "arriving" // parts of it are missing
	imageArrived  imageState = "arrived"  // all are in the spool
	imageReady    imageState = "ready"    // the engine has it
	imageRemoving imageState = "removing"
)

const (
	maxImage      = 8 << 30        // bytes of one image that is pushed here
	maxImages     = 256            // of one peer
	imagePatience = 24 * time.Hour // how long parts of an image wait for the rest
	imageTend     = time.Minute    // how often what failed is tried again
)

// pushedImage is an image that a peer pushed here.
type pushedImage struct {
	Owner   mesh.PeerID `json:"owner"` // the first key by which the peer was known here
	Peer    mesh.PeerID `json:"peer"`  // its key as of now
	Image   oci.Image   `json:"image"`
	Name    string      `json:"name,omitempty"` // what its owner calls it; for people
	State   imageState  `json:"state"`
	Created time.Time   `json:"created"`
	Touched time.Time   `json:"touched"` // when its owner last asked for it
}

func (p pushedImage) ref() string { return mesh.PushedRef(p.Owner, p.Image.ID) }
func (p pushedImage) key() []byte { return imageKey(p.Owner, p.Image.ID) }

func imageKey(owner mesh.PeerID, id string) []byte { return []byte(owner.String() + "/" + id) }

func putImage(tx *store.Tx, p pushedImage) error { return tx.PutJSON(store.Images, p.key(), p) }

func getImage(tx *store.Tx, owner mesh.PeerID, id string) (p pushedImage, ok bool, err error) {
	ok, err = tx.GetJSON(store.Images, imageKey(owner, id), &p)
	return p, ok, err
}

func eachImage(tx *store.Tx, fn func(pushedImage) error) error {
	return tx.Each(store.Images, nil, func(k, _ []byte) (bool, error) {
		var p pushedImage
		_, err := tx.GetJSON(store.Images, k, &p)
		if err == nil {
			err = fn(p)
		}
		return err == nil, err
	})
}

// ImageManifest is the digest of the manifest of an image that was pushed here; empty =
// there is none of that name.
func ImageManifest(s *store.Store, ref string) (digest string) {
	err := s.View(func(tx *store.Tx) error {
		return eachImage(tx, func(p pushedImage) (err error) {
			if p.ref() == ref {
				_, digest, err = p.Image.Manifest()
			}
			return err
		})
	})
	if err != nil {
		return ""
	}
	return digest
}

// imageDisk is what images take that peers pushed: of one owner, and of all. A part
// that several images of an owner have counts once; one whose size is told
// differently is another, because only one of the two can be true.
func imageDisk(tx *store.Tx, owner mesh.PeerID) (parts map[oci.Layer]bool, held, all int64, count int, err error) {
	type own struct {
		owner mesh.PeerID
		part  oci.Layer
	}
	seen := map[own]bool{}
	parts = map[oci.Layer]bool{}
	err = eachImage(tx, func(p pushedImage) error {
		if p.Owner == owner {
			count++
		}
		for _, part := range p.Image.Parts() {
			if k := (own{p.Owner, part}); !seen[k] {
				seen[k] = true
				all += part.Size
				if p.Owner == owner {
					held += part.Size
					parts[part] = true
				}
			}
		}
		return nil
	})
	return parts, held, all, count, err
}

// addImages counts images as disk that is in use.
func (n *Node) addImages(tx *store.Tx, who mesh.PeerID, u *admission.Usage) error {
	owner := who
	if g, ok := n.m.Trust.Entry(who); ok {
		owner = g.First()
	}
	_, held, all, _, err := imageDisk(tx, owner)
	u.Peer.Resources.Disk += held
	u.Host.Resources.Disk += all
	return err
}

// imageUse is how many workloads there are that have each pushed image, or could go back
// to a revision that had it.
func imageUse(tx *store.Tx) (map[string]int, error) {
	used := map[string]int{}
	return used, supervisor.Each(tx, func(r supervisor.Record) error {
		specs := r.Specs()
		if r.Desired != supervisor.Remove {
			past, err := supervisor.History(tx, r.Workload.ID)
			if err != nil {
				return err
			}
			for _, v := range past {
				specs = append(specs, v.Spec)
			}
		}
		had := map[string]bool{}
		for _, s := range specs {
			if s.Runtime == mesh.Container && !had[s.Image] {
				had[s.Image] = true
				used[s.Image]++
			}
		}
		return nil
	})
}

// pushedReady requires that the image of a spec, if one was pushed, is here.
func pushedReady(tx *store.Tx, g trust.Grant, s mesh.Spec) error {
	_, id, ok := mesh.ParsePushed(s.Image)
	if s.Runtime != mesh.Container || !ok {
		return nil
	}
	if p, ok, err := getImage(tx, g.First(), id); err != nil || ok && p.State == imageReady {
		return err
	}
	return mesh.Errorf(mesh.NotFound, "the image %s was not pushed here, or is no longer here", id).
		WithRule("image.pushed").WithHint("push it again: peerctl deploy IMAGE --push")
}

// imagesOf lists what who pushed; for this node itself, everybody's.
func (n *Node) imagesOf(who mesh.PeerID, g trust.Grant) (out []pushedImage, used map[string]int, err error) {
	err = n.m.Store.View(func(tx *store.Tx) error {
		if used, err = imageUse(tx); err != nil {
			return err
		}
		return eachImage(tx, func(p pushedImage) error {
			if who == n.m.Key.ID || p.Owner == g.First() {
				out = append(out, p)
			}
			return nil
		})
	})
	slices.SortFunc(out, func(a, b pushedImage) int { return b.Created.Compare(a.Created) })
	return out, used, err
}

func showImage(p pushedImage, used int) wire.PushedImage {
	return wire.PushedImage{
		Ref: p.ref(), ID: p.Image.ID, Name: p.Name, Size: p.Image.Size(), State: string(p.State), Created: p.Created.UnixMilli(), Used: used,
	}
}

// prune marks those of who's images for removal that no workload uses. gone is set
// once it is committed.
func (n *Node) prune(who mesh.PeerID, g trust.Grant, gone *[]pushedImage) change {
	return change{
		commit: func(tx *store.Tx) error {
			*gone = nil
			used, err := imageUse(tx)
			if err != nil {
				return err
			}
			err = eachImage(tx, func(p pushedImage) error {
				mine := who == n.m.Key.ID || p.Owner == g.First()
				if mine && used[p.ref()] == 0 && !n.arrivals.busy(p) {
					*gone = append(*gone, p)
				}
				return nil
			})
			for _, p := range *gone {
				p.State = imageRemoving
				if err == nil {
					err = putImage(tx, p)
				}
			}
			if err == nil && len(*gone) > 0 {
				err = n.noteImage(tx, who, "prune-images", "", "")
			}
			return err
		},
		after: func() { signal(n.imageWake) },
	}
}

func (n *Node) noteImage(tx *store.Tx, who mesh.PeerID, action, id, detail string) error {
	e := audit.Entry{Time: n.m.Now(), Actor: n.actor(who), Action: action, Subject: id, Outcome: audit.Done, Detail: detail}
	if who != n.m.Key.ID {
		e.Rule = "grant"
	}
	return audit.Append(tx, e)
}

// dropImages marks all images of a peer for removal that was removed itself.
func (n *Node) dropImages(ctx context.Context, p mesh.PeerID) error {
	err := n.m.Store.Update(ctx, func(tx *store.Tx) error {
		var hit []pushedImage
		err := eachImage(tx, func(i pushedImage) error {
			if i.Peer == p {
				hit = append(hit, i)
			}
			return nil
		})
		for _, i := range hit {
			i.State = imageRemoving
			if err == nil {
				err = putImage(tx, i)
			}
		}
		return err
	})
	signal(n.imageWake)
	return err
}

// rekeyImages moves images to the new key of their owner. What they are called stays.
func rekeyImages(tx *store.Tx, from, to mesh.PeerID) error {
	var hit []pushedImage
	err := eachImage(tx, func(i pushedImage) error {
		if i.Peer == from {
			hit = append(hit, i)
		}
		return nil
	})
	for _, i := range hit {
		i.Peer = to
		if err == nil {
			err = putImage(tx, i)
		}
	}
	return err
}

// engineImages is the driver that has images; Unsupported if none does.
func (n *Node) engineImages() (driver.Images, error) { return ofContainers[driver.Images](n) }

// ofContainers is the driver of containers, for what it can do besides running them.
func ofContainers[T any](n *Node) (T, error) {
	d, ok := n.cfg.Runtimes[mesh.Container].Driver.(T)
	if !ok {
		return d, mesh.Errorf(mesh.Unsupported, "this machine runs no containers").WithRule("host.runtime").WithHint("see: peerctl status")
	}
	return d, nil
}

// The spool: parts that arrived, by owner. Owners are apart, so that a digest gives
// nobody another one's bytes.

func (n *Node) imagesDir() string { return filepath.Join(n.m.Home, "images") }

func (n *Node) spoolDir(owner mesh.PeerID) string {
	sum := sha256.Sum256([]byte(owner))
	return filepath.Join(n.imagesDir(), "in", hex.EncodeToString(sum[:16]))
}

const partial = ".part" // ends the name of a part of which bytes are missing

// imageWaits hear what became of an image.
type imageWaits struct {
	mu    sync.Mutex
	waits map[string][]chan error // by key
}

func (w *imageWaits) add(key []byte) <-chan error {
	c := make(chan error, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waits == nil {
		w.waits = map[string][]chan error{}
	}
	w.waits[string(key)] = append(w.waits[string(key)], c)
	return c
}

func (w *imageWaits) tell(key []byte, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.waits[string(key)] {
		c <- err
	}
	delete(w.waits, string(key))
}

// keepImages makes the engine have what arrived, and not have what was removed,
// until ctx ends.
func (n *Node) keepImages(ctx context.Context) error {
	t := time.NewTicker(imageTend)
	defer t.Stop()
	for {
		if err := n.tendImages(ctx); err != nil && ctx.Err() == nil {
			n.log.Error("cannot tend the images that peers pushed", "err", err)
		}
		select {
		case <-n.imageWake:
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *Node) tendImages(ctx context.Context) error {
	d, err := n.engineImages()
	if err != nil {
		return nil
	}
	var todo []pushedImage
	err = n.m.Store.View(func(tx *store.Tx) error {
		return eachImage(tx, func(p pushedImage) error {
			todo = append(todo, p)
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, p := range todo {
		switch {
		case p.State == imageArrived:
			n.waits.tell(p.key(), n.settleImage(ctx, p, n.importImage(ctx, d, p)))
		case p.State == imageRemoving:
			if err := d.Forget(ctx, p.ref()); err != nil {
				n.log.Warn("cannot remove an image yet", "image", p.ref(), "err", err)
				continue
			}
			err = errors.Join(err, n.forgetImage(ctx, p))
		case p.State == imageArriving && n.m.Now().Sub(p.Touched) > imagePatience:
			err = errors.Join(err, n.forgetImage(ctx, p))
		}
	}
	return errors.Join(err, n.sweepSpool())
}

func (n *Node) importImage(ctx context.Context, d driver.Images, p pushedImage) error {
	return d.Import(ctx, driver.Import{Image: p.Image, Ref: p.ref(), Dir: n.spoolDir(p.Owner)})
}

// settleImage records what came of an import, and returns that. What only failed
// because the engine is away is tried again; other failures forget the image.
func (n *Node) settleImage(ctx context.Context, p pushedImage, failed error) error {
	if failed != nil {
		n.log.Warn("cannot take an image that a peer pushed", "image", p.ref(), "err", failed)
		if k := mesh.KindOf(failed); k == mesh.Unavailable || k == mesh.Canceled || k == mesh.Timeout {
			return failed
		}
		return errors.Join(failed, n.forgetImage(ctx, p))
	}
	n.log.Info("took an image that a peer pushed", "image", p.ref(), "name", p.Name)
	return n.m.Store.Update(ctx, func(tx *store.Tx) error {
		now, ok, err := getImage(tx, p.Owner, p.Image.ID)
		if err != nil || !ok || now.State != imageArrived {
			return err
		}
		now.State = imageReady
		return putImage(tx, now)
	})
}

// forgetImage drops the record of an image that is as it was seen.
func (n *Node) forgetImage(ctx context.Context, p pushedImage) error {
	return n.m.Store.Update(ctx, func(tx *store.Tx) error {
		now, ok, err := getImage(tx, p.Owner, p.Image.ID)
		if err != nil || !ok || now.State != p.State || !now.Touched.Equal(p.Touched) {
			return err
		}
		return tx.Delete(store.Images, p.key())
	})
}

// sweepSpool removes what no image waits for any more. It looks at the files first:
// what comes later has its record already.
func (n *Node) sweepSpool() error {
	files, err := filepath.Glob(filepath.Join(n.imagesDir(), "in", "*", "*"))
	if err != nil || len(files) == 0 {
		return err
	}
	needed := map[string]bool{}
	err = n.m.Store.View(func(tx *store.Tx) error {
		return eachImage(tx, func(p pushedImage) error {
			if p.State == imageArriving || p.State == imageArrived {
				for _, part := range p.Image.Parts() {
					needed[filepath.Join(n.spoolDir(p.Owner), oci.FileName(part.Digest))] = true
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, f := range files {
		if !needed[strings.TrimSuffix(f, partial)] {
			if rerr := os.Remove(f); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
				err = errors.Join(err, rerr)
			}
		}
	}
	return err
}
