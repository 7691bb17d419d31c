package node

import (
	"context"
	"io"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

var _ control.Images = (*api)(nil)

// PushImage gives an image of this machine to a peer.
func (a *api) PushImage(ctx context.Context, r control.PushImage, emit func(control.ImageEvent) error) error {
	p, err := a.where(r.Peer)
	if err != nil {
		return err
	}
	if p == a.n.m.Key.ID {
		return mesh.Errorf(mesh.Invalid, "an image cannot be pushed to this machine itself").WithHint("name the peer with --peer")
	}
	begun := a.n.m.Now()
	sent, err := a.n.pushImage(ctx, p, r.Image, func(pr mesh.Progress) { _ = emit(control.ImageEvent{Progress: &pr}) })
	if err != nil {
		return err
	}
	return emit(control.ImageEvent{Image: &control.Image{
		Peer: a.n.m.Trust.Name(p), PeerID: p, Owner: "self", OwnerID: a.n.m.Key.ID, Ref: sent.ref, ID: sent.img.ID, Name: r.Image,
		Size: sent.img.Size(), State: string(imageReady), Created: begun, Sent: sent.sent,
	}})
}

// BuildImage builds an image on this machine, for whoever sits at it. There is no
// other way to here than the local API: no request of a peer builds anything.
func (a *api) BuildImage(ctx context.Context, dir io.Reader, o control.BuildOptions, emit func(control.ImageEvent) error) error {
	b, ok := a.n.cfg.Runtimes[mesh.Container].Driver.(driver.Builder)
	if !ok {
		return mesh.Errorf(mesh.Unsupported, "this machine runs no containers, so it cannot build an image").WithHint("see: peerctl status")
	}
	id, err := b.Build(ctx, dir, driver.BuildOptions{Dockerfile: o.Dockerfile, Target: o.Target, Args: o.Args}, logWriter(func(line string) error { return emit(control.ImageEvent{Log: line}) }))
	if err != nil {
		return err
	}
	return emit(control.ImageEvent{Image: &control.Image{Peer: "self", PeerID: a.n.m.Key.ID, Owner: "self", OwnerID: a.n.m.Key.ID, ID: id, State: string(imageReady)}})
}

type logWriter func(string) error

func (w logWriter) Write(p []byte) (int, error) { return len(p), w(string(p)) }

// Images lists what peers pushed here, or what this machine pushed to one.
func (a *api) Images(ctx context.Context, peer string) ([]control.Image, error) {
	out := []control.Image{}
	p, err := a.imagesAt(peer)
	if err != nil {
		return out, err
	}
	if p == a.n.m.Key.ID {
		images, used, err := a.n.imagesOf(p, trust.Grant{})
		for _, i := range images {
			out = append(out, a.showImage(p, i.Peer, showImage(i, used[i.ref()])))
		}
		return out, err
	}
	var reply wire.ImagesReply
	err = a.n.ask(ctx, p, wire.VerbImages, wire.Images{}, &reply)
	return a.showImages(p, reply.Images), err
}

// PruneImages removes those of them that no workload uses.
func (a *api) PruneImages(ctx context.Context, peer string) ([]control.Image, error) {
	p, err := a.imagesAt(peer)
	if err != nil {
		return nil, err
	}
	if p == a.n.m.Key.ID {
		var gone []pushedImage
		if err := a.n.apply(ctx, a.n.prune(p, trust.Grant{}, &gone)); err != nil {
			return nil, err
		}
		out := []control.Image{}
		for _, i := range gone {
			out = append(out, a.showImage(p, i.Peer, showImage(i, 0)))
		}
		return out, nil
	}
	var reply wire.PruneReply
	err = a.n.ask(ctx, p, wire.VerbPrune, wire.Prune{}, &reply)
	return a.showImages(p, reply.Images), err
}

func (a *api) imagesAt(peer string) (mesh.PeerID, error) {
	if peer == "" {
		return a.n.m.Key.ID, nil
	}
	return a.where(peer)
}

func (a *api) showImages(at mesh.PeerID, images []wire.PushedImage) []control.Image {
	out := []control.Image{}
	for _, i := range images {
		out = append(out, a.showImage(at, a.n.m.Key.ID, i))
	}
	return out
}

func (a *api) showImage(at, owner mesh.PeerID, i wire.PushedImage) control.Image {
	return control.Image{
		Peer: a.n.m.Trust.Name(at), PeerID: at, Owner: a.n.m.Trust.Name(owner), OwnerID: owner, Ref: i.Ref, ID: i.ID,
		Name: forPeople(i.Name), Size: i.Size, State: i.State, Created: time.UnixMilli(i.Created).UTC(), Used: i.Used,
	}
}
