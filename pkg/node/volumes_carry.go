package node

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/driver"
	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file carries the files of volumes: out as an archive, and from one into a new
// volume. Both sides count and hash what goes over, so that half of it is never taken
// for the whole.

func (n *Node) onVolumes(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.Volumes
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	all, err := n.volumes(c.From)
	out := wire.VolumesReply{Volumes: []wire.Volume{}}
	for _, v := range all {
		out.Volumes = append(out.Volumes, n.showVolume(ctx, v))
	}
	return request.Reply{Body: out}, err
}

func decodeVolumeRef(c *request.Call) (wire.VolumeRef, error) {
	var in wire.VolumeRef
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return in, err
	}
	_, err := mesh.ParseVolumeID(string(in.Volume))
	return in, err
}

func (n *Node) onRemoveVolume(_ context.Context, c *request.Call) (request.Reply, error) {
	in, err := decodeVolumeRef(c)
	return done(n.removeVolume(c.From, in.Volume)), err
}

// beginBackup finds a volume of who's that nothing runs on.
func (n *Node) beginBackup(who mesh.PeerID, id mesh.VolumeID) (v volumeRecord, d driver.Volumes, note func(*store.Tx) error, done func(), err error) {
	if d, err = n.volumeDriver(); err != nil {
		return v, nil, nil, nil, err
	}
	look := func(tx *store.Tx) error {
		if v, err = n.ownedVolume(tx, who, id); err != nil {
			return err
		}
		if v.State != volumeReady {
			return mesh.Errorf(mesh.Conflict, "volume %s is %s", v.Name, v.State).WithRule("volume.state")
		}
		users, err := volumeUsers(tx, v.Owner, v.Name)
		for _, r := range users {
			if err == nil && (r.Holds() || r.Updating()) {
				name := r.Workload.Spec.Name
				err = mesh.Errorf(mesh.Conflict, "workload %s writes to volume %s, and half of a change could be in the backup", name, v.Name).
					WithRule("volume.in-use").WithHint("stop it meanwhile: peerctl stop %s   and after the backup: peerctl restart %s", name, name)
			}
		}
		return err
	}
	if err := n.m.Store.View(look); err != nil {
		return v, nil, nil, nil, err
	}
	if done, err = n.volumeWork.carry(v.Owner); err != nil {
		return v, nil, nil, nil, err
	}
	return v, d, func(tx *store.Tx) error {
		if err := look(tx); err != nil {
			return err
		}
		return n.noteVolume(tx, who, "backup-volume", v, "")
	}, done, nil
}

// writeArchive writes the archive of a volume and says what it is.
func writeArchive(ctx context.Context, d driver.Volumes, v volumeRecord, w io.Writer) (wire.Archive, error) {
	sum := newSummed(w)
	a, err := d.BackupVolume(ctx, v.driver(), sum)
	return sum.archive(a), err
}

func (n *Node) onBackupVolume(_ context.Context, c *request.Call) (request.Reply, error) {
	in, err := decodeVolumeRef(c)
	if err != nil {
		return request.Reply{}, err
	}
	v, d, note, done, err := n.beginBackup(c.From, in.Volume)
	if err != nil {
		return request.Reply{}, err
	}
	return request.Reply{Body: wire.Empty{}, Commit: note, Cancel: done, Stream: func(ctx context.Context, s *peernet.Stream) error {
		defer done()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() { // who asked may go away
			_, _ = io.Copy(io.Discard, s)
			cancel()
		}()
		out := bufio.NewWriterSize(frame.Writer{W: deadlineWriter{s}, Type: wire.FrameData}, frame.Max)
		a, err := writeArchive(ctx, d, v, out)
		if err == nil {
			err = out.Flush()
		}
		if err != nil {
			return endWithError(s, err)
		}
		return writeArchiveFrame(deadlineWriter{s}, a)
	}}, nil
}

func writeArchiveFrame(w io.Writer, a wire.Archive) error {
	b, err := wire.Marshal(a)
	if err != nil {
		return err
	}
	return frame.Write(w, wire.FrameArchive, b)
}

// beginRestore judges a volume that is to be made and filled, and records it.
func (n *Node) beginRestore(ctx context.Context, who mesh.PeerID, g trust.Grant, in wire.RestoreVolume, run mesh.WorkloadID) (v volumeRecord, d driver.Volumes, commit func(*store.Tx) error, done func(), err error) {
	m := mesh.VolumeMount{Name: in.Name, Target: "/x", Size: in.Size}
	if why := m.Problem(); why != "" || in.Size == 0 {
		return v, nil, nil, nil, mesh.Errorf(mesh.Invalid, "%s", why)
	}
	if d, err = n.volumeDriver(); err != nil {
		return v, nil, nil, nil, err
	}
	if err := n.volumesReady(ctx, mesh.Spec{Volumes: []mesh.VolumeMount{m}}); err != nil {
		return v, nil, nil, nil, err
	}
	carried, err := n.volumeWork.carry(who)
	if err != nil {
		return v, nil, nil, nil, err
	}
	v.ID = mesh.NewVolumeID(run, in.Name)
	filled := n.volumeWork.fill(v.ID)
	policy := n.policy(ctx)
	commit = func(tx *store.Tx) error {
		if _, ok, err := namedVolume(tx, who, in.Name); err != nil || ok {
			return cmpErr(err, mesh.Errorf(mesh.Conflict, "there is a volume %s already, and a backup is only put into a new one", in.Name).
				WithRule("volume.name").WithHint("choose another name, or remove that: peerctl volume rm %s", in.Name))
		}
		p, grant, usage, err := n.weigh(tx, policy, who, g)
		if err != nil {
			return err
		}
		if err := admission.DecideVolume(p, grant, in.Size, usage).Refusal(who); err != nil {
			return err
		}
		if err := roomForVolumes(tx, who, 1); err != nil {
			return err
		}
		v, err = n.addVolume(tx, who, g, in.Name, in.Size, run, volumeRestoring)
		return err
	}
	return v, d, commit, func() { filled(); carried() }, nil
}

func cmpErr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// fillVolume fills a volume that beginRestore recorded. Whatever keeps it from being
// whole has it removed again.
func (n *Node) fillVolume(ctx context.Context, d driver.Volumes, id mesh.VolumeID, r io.Reader) (a driver.Archive, v volumeRecord, err error) {
	err = n.m.Store.View(func(tx *store.Tx) error {
		var ok bool
		if v, ok, err = getVolume(tx, id); err == nil && !ok {
			err = errRemovedMeanwhile()
		}
		return err
	})
	if err == nil {
		a, err = d.RestoreVolume(ctx, v.driver(), r)
	}
	// Also when ctx has ended.
	serr := n.m.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		now, ok, err2 := getVolume(tx, id)
		if err2 != nil {
			return err2
		}
		if !ok || now.State != volumeRestoring {
			return errRemovedMeanwhile()
		}
		if now.State = volumeReady; err != nil {
			now.State = volumeRemoving
		}
		v = now
		return putVolume(tx, now)
	})
	signal(n.volumeWake)
	return a, v, cmpErr(err, serr)
}

func errRemovedMeanwhile() error {
	return mesh.Errorf(mesh.Canceled, "the volume was removed while it was filled")
}

func (n *Node) onRestoreVolume(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.RestoreVolume
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	v, d, commit, done, err := n.beginRestore(ctx, c.From, c.Grant, in, mesh.NewWorkloadID(c.Digest))
	if err != nil {
		return request.Reply{}, err
	}
	return request.Reply{Body: wire.Empty{}, Commit: commit, Cancel: done, Stream: func(ctx context.Context, s *peernet.Stream) error {
		defer done()
		in := &archiveReader{in: bufio.NewReaderSize(deadlineReader{s}, 64<<10), sum: newSummed(io.Discard)}
		a, _, err := n.fillVolume(ctx, d, v.ID, in)
		if err != nil {
			return endWithError(s, err)
		}
		return writeArchiveFrame(deadlineWriter{s}, in.sum.archive(a))
	}}, nil
}

// summed hashes and counts what goes through.
type summed struct {
	w    io.Writer
	hash hash.Hash
	n    int64
}

func newSummed(w io.Writer) *summed { return &summed{w: w, hash: sha256.New()} }

func (s *summed) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.hash.Write(p[:n])
	s.n += int64(n)
	return n, err
}

func (s *summed) archive(a driver.Archive) wire.Archive {
	return wire.Archive{Digest: "sha256:" + hex.EncodeToString(s.hash.Sum(nil)), Size: s.n, Entries: a.Entries, Bytes: a.Bytes, Left: a.Left}
}

// archiveReader reads an archive that comes in frames. It ends well only behind the
// frame that says what it was to be.
type archiveReader struct {
	in   *bufio.Reader
	sum  *summed
	rest []byte
	over error
	told wire.Archive
}

func (r *archiveReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.over != nil {
			return 0, r.over
		}
		r.over = r.next()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *archiveReader) next() error {
	typ, b, err := frame.Read(r.in)
	if err != nil {
		return mesh.Errorf(mesh.Unavailable, "the connection was lost while the volume was carried").Because(err)
	}
	switch typ {
	case wire.FrameData:
		r.rest = b
		_, err := r.sum.Write(b)
		return err
	case wire.FrameError:
		return remoteError(b)
	case wire.FrameArchive:
		if err := wire.DecodeBody(b, &r.told); err != nil {
			return err
		}
		if got := r.sum.archive(driver.Archive{}); got.Digest != r.told.Digest || got.Size != r.told.Size {
			return mesh.Errorf(mesh.Forged, "what came is not the archive that was sent").WithRule("volume.digest")
		}
		return io.EOF
	}
	return mesh.Errorf(mesh.Invalid, "frame type %d has no place in an archive", typ)
}

// backupThere writes the archive of a volume on a peer to w.
func (n *Node) backupThere(ctx context.Context, p mesh.PeerID, id mesh.VolumeID, begin func() (io.Writer, error)) (wire.Archive, error) {
	s, err := n.m.Client.Open(ctx, p, wire.VerbBackupVolume, wire.VolumeRef{Volume: id}, nil)
	if err != nil {
		return wire.Archive{}, n.elsewhere(p, err)
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, s.Reset)()
	r := &archiveReader{in: bufio.NewReaderSize(deadlineReader{s}, 64<<10), sum: newSummed(io.Discard)}
	// Until the first bytes it may still be refused, in a way that can be told well.
	if _, err := r.Read(nil); err != nil {
		return wire.Archive{}, n.elsewhere(p, err)
	}
	w, err := begin()
	if err != nil {
		return wire.Archive{}, err
	}
	_, err = io.Copy(w, r)
	return r.told, n.elsewhere(p, err)
}

// restoreThere makes a volume on a peer and fills it from r.
func (n *Node) restoreThere(ctx context.Context, p mesh.PeerID, in wire.RestoreVolume, r io.Reader) (wire.Archive, error) {
	s, err := n.m.Client.Open(ctx, p, wire.VerbRestoreVolume, in, nil)
	if err != nil {
		return wire.Archive{}, n.elsewhere(p, err)
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, s.Reset)()
	type answer struct {
		a   wire.Archive
		err error
	}
	said := make(chan answer, 1)
	go func() { // it may refuse while it is still being sent to
		var out answer
		typ, b, err := frame.Read(s)
		switch {
		case err != nil:
			out.err = mesh.Errorf(mesh.Unavailable, "the connection was lost while the volume was carried").Because(err)
		case typ == wire.FrameError:
			out.err = remoteError(b)
		case typ != wire.FrameArchive:
			out.err = mesh.Errorf(mesh.Invalid, "frame type %d is no answer to an archive", typ)
		default:
			out.err = wire.DecodeBody(b, &out.a)
		}
		if out.err != nil {
			s.Reset()
		}
		said <- out
	}()
	sum := newSummed(frame.Writer{W: deadlineWriter{s}, Type: wire.FrameData})
	buf := make([]byte, frame.Max)
	_, err = io.CopyBuffer(onlyWriter{sum}, onlyReader{r}, buf)
	if err == nil {
		err = writeArchiveFrame(deadlineWriter{s}, sum.archive(driver.Archive{}))
	}
	if err != nil {
		t := time.AfterFunc(lastWord, s.Reset)
		defer t.Stop()
		s.CloseWrite()
		if a := <-said; a.err != nil && mesh.KindOf(a.err) != mesh.Unavailable {
			return wire.Archive{}, n.elsewhere(p, a.err) // which is why it broke off
		}
		return wire.Archive{}, n.elsewhere(p, err)
	}
	a := <-said
	return a.a, n.elsewhere(p, a.err)
}
