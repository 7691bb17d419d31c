package node

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

var _ control.Volumes = (*api)(nil)

// Volumes lists the volumes here, or those of this machine's owner on a peer.
func (a *api) Volumes(ctx context.Context, peer string) ([]control.Volume, error) {
	out := []control.Volume{}
	p, err := a.imagesAt(peer)
	if err != nil {
		return out, err
	}
	self := a.n.m.Key.ID
	if p == self {
		all, err := a.n.volumes(self)
		for _, v := range all {
			out = append(out, a.showVolume(p, v.Owner, a.n.showVolume(ctx, v)))
		}
		return out, err
	}
	var reply wire.VolumesReply
	err = a.n.ask(ctx, p, wire.VerbVolumes, wire.Volumes{}, &reply)
	for _, v := range reply.Volumes {
		out = append(out, a.showVolume(p, self, v))
	}
	return out, err
}

func (a *api) showVolume(at, owner mesh.PeerID, v wire.Volume) control.Volume {
	out := control.Volume{
		ID: v.ID, Name: forPeople(v.Name), Peer: a.n.m.Trust.Name(at), PeerID: at, Owner: a.n.m.Trust.Name(owner), OwnerID: owner,
		Size: v.Size, Used: v.Filled, State: forPeople(v.State), Created: time.UnixMilli(v.Created).UTC(), Workloads: []string{},
	}
	for _, w := range v.Used {
		out.Workloads = append(out.Workloads, forPeople(w))
	}
	return out
}

// findVolume resolves a volume's name or unique ID prefix.
func (a *api) findVolume(ctx context.Context, ref, peer string) (control.Volume, error) {
	all, err := a.Volumes(ctx, peer)
	if err != nil {
		return control.Volume{}, err
	}
	all = slices.DeleteFunc(all, func(v control.Volume) bool { return v.State == string(volumeRemoving) })
	self := a.n.m.Key.ID
	for _, fits := range []func(control.Volume) bool{
		func(v control.Volume) bool { return v.Name == ref && v.OwnerID == self },
		func(v control.Volume) bool { return v.Name == ref },
		func(v control.Volume) bool { return ref != "" && strings.HasPrefix(string(v.ID), ref) },
	} {
		var found []control.Volume
		for _, v := range all {
			if fits(v) {
				found = append(found, v)
			}
		}
		switch {
		case len(found) == 1:
			return found[0], nil
		case len(found) > 1:
			var which []string
			for _, v := range found {
				which = append(which, string(v.ID)+" of "+v.Owner)
			}
			return control.Volume{}, mesh.Errorf(mesh.Conflict, "%q could be any of: %s", ref, strings.Join(which, ", ")).WithHint("give the ID")
		}
	}
	return control.Volume{}, mesh.Errorf(mesh.NotFound, "no volume is called %q", ref).WithHint("list them with: peerctl volume ls --peer NAME")
}

// Volume is one volume.
func (a *api) Volume(ctx context.Context, ref, peer string) (control.Volume, error) {
	return a.findVolume(ctx, ref, peer)
}

// RemoveVolume removes a volume with all its files, and waits a while until it is gone.
func (a *api) RemoveVolume(ctx context.Context, ref, peer string) (control.Volume, error) {
	v, err := a.findVolume(ctx, ref, peer)
	if err != nil {
		return v, err
	}
	if v.PeerID == a.n.m.Key.ID {
		err = a.n.apply(ctx, a.n.removeVolume(v.PeerID, v.ID))
	} else {
		err = a.n.ask(ctx, v.PeerID, wire.VerbRemoveVolume, wire.VolumeRef{Volume: v.ID}, nil)
	}
	if err != nil {
		return v, err
	}
	v.State = string(volumeRemoving)
	wait, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for pause := 20 * time.Millisecond; sleepFor(wait, pause); pause = min(2*pause, time.Second) {
		all, err := a.Volumes(wait, v.PeerID.String())
		if err != nil {
			return v, nil // it is on its way
		}
		if !slices.ContainsFunc(all, func(o control.Volume) bool { return o.ID == v.ID }) {
			v.State = control.VolumeRemoved
			return v, nil
		}
	}
	return v, nil
}

func showArchive(w wire.Archive) control.Archive {
	return control.Archive{Digest: w.Digest, Size: w.Size, Entries: w.Entries, Bytes: w.Bytes, Left: w.Left}
}

// BackupVolume writes an archive of a volume's files.
func (a *api) BackupVolume(ctx context.Context, ref, peer string, begin func() (io.Writer, error)) (control.Archive, error) {
	v, err := a.findVolume(ctx, ref, peer)
	if err != nil {
		return control.Archive{}, err
	}
	if v.PeerID != a.n.m.Key.ID {
		got, err := a.n.backupThere(ctx, v.PeerID, v.ID, begin)
		return showArchive(got), err
	}
	r, d, note, done, err := a.n.beginBackup(v.PeerID, v.ID)
	if err != nil {
		return control.Archive{}, err
	}
	defer done()
	if err := a.n.m.Store.Update(ctx, note); err != nil {
		return control.Archive{}, err
	}
	got, err := writeArchive(ctx, d, r, &lateWriter{begin: begin})
	return showArchive(got), err
}

// lateWriter begins with the first bytes: what fails before can be told well.
type lateWriter struct {
	begin func() (io.Writer, error)
	w     io.Writer
}

func (l *lateWriter) Write(p []byte) (int, error) {
	if l.w == nil {
		w, err := l.begin()
		if err != nil {
			return 0, err
		}
		l.w = w
	}
	return l.w.Write(p)
}

// RestoreVolume makes a volume and fills it with the files of an archive.
func (a *api) RestoreVolume(ctx context.Context, in control.RestoreVolume, r io.Reader) (control.RestoredVolume, error) {
	p, err := a.where(in.Peer)
	if err != nil {
		return control.RestoredVolume{}, err
	}
	body := wire.RestoreVolume{Name: in.Name, Size: sizeOf(mesh.VolumeMount{Size: in.Size})}
	if why := (mesh.VolumeMount{Name: body.Name, Target: "/x", Size: body.Size}).Problem(); why != "" {
		return control.RestoredVolume{}, mesh.Errorf(mesh.Invalid, "%s", why)
	}
	r = &pinnedReader{r: r, want: in.Digest, sum: newSummed(io.Discard)}
	var got wire.Archive
	if self := a.n.m.Key.ID; p == self {
		v, d, commit, done, err := a.n.beginRestore(ctx, self, trust.Grant{}, body, mesh.NewWorkloadID(randomDigest()))
		if err != nil {
			return control.RestoredVolume{}, err
		}
		defer done()
		if err := a.n.apply(ctx, change{commit, func() {}}); err != nil {
			return control.RestoredVolume{}, err
		}
		sum := newSummed(io.Discard)
		filled, _, err := a.n.fillVolume(ctx, d, v.ID, io.TeeReader(r, sum))
		if err != nil {
			return control.RestoredVolume{}, err
		}
		got = sum.archive(filled)
	} else if got, err = a.n.restoreThere(ctx, p, body, r); err != nil {
		return control.RestoredVolume{}, err
	}
	v, err := a.findVolume(ctx, in.Name, p.String())
	return control.RestoredVolume{Volume: v, Archive: showArchive(got)}, err
}

// pinnedReader ends well only if what was read has the digest that was asked for.
type pinnedReader struct {
	r    io.Reader
	want string // empty = any
	sum  *summed
}

func (p *pinnedReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if _, werr := p.sum.Write(b[:n]); werr != nil {
		return n, werr
	}
	if err == io.EOF && p.want != "" && p.sum.archive(driver.Archive{}).Digest != p.want {
		return n, mesh.Errorf(mesh.Denied, "the archive is not the one with the digest %s", p.want).WithRule("volume.digest")
	}
	return n, err
}
