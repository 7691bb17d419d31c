package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/driver"
	"peercompute/pkg/identity"
	"peercompute/pkg/member"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/supervisor"
	"peercompute/pkg/trust"
)

var (
	ann = mesh.PeerID("\x00\x24\x08\x01\x12\x20" + strings.Repeat("a", 32))
	ben = mesh.PeerID("\x00\x24\x08\x01\x12\x20" + strings.Repeat("b", 32))
)

// shelf is a driver that has volumes and nothing else.
type shelf struct {
	driver.Driver
	refuse  int // removals that fail
	removed []mesh.VolumeID
	restore func(io.Reader) error
	used    int64
	files   map[mesh.VolumeID]driver.VolumeFile
}

func (s *shelf) VolumesReady(context.Context) error                       { return nil }
func (s *shelf) VolumeUsed(context.Context, mesh.VolumeID) (int64, error) { return s.used, nil }
func (s *shelf) VolumeFiles(context.Context) (map[mesh.VolumeID]driver.VolumeFile, error) {
	return s.files, nil
}
func (s *shelf) MakeVolume(context.Context, driver.Volume) error { return nil }
func (s *shelf) BackupVolume(context.Context, driver.Volume, io.Writer) (driver.Archive, error) {
	return driver.Archive{}, nil
}

func (s *shelf) RestoreVolume(_ context.Context, _ driver.Volume, r io.Reader) (driver.Archive, error) {
	return driver.Archive{}, s.restore(r)
}

func (s *shelf) RemoveVolume(_ context.Context, id mesh.VolumeID) error {
	if s.refuse > 0 {
		s.refuse--
		return mesh.Errorf(mesh.Unavailable, "the volume is in use")
	}
	s.removed = append(s.removed, id)
	return nil
}

// withShelf is a node that is nothing but its records of volumes.
func withShelf(t *testing.T) (*Node, *shelf) {
	t.Helper()
	key, err := identity.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	d := &shelf{}
	n := &Node{m: &member.Member{Config: member.Config{Now: time.Now}, Store: st, Key: key}, volumeWake: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler)}
	n.cfg.Runtimes = map[mesh.Runtime]Runtime{mesh.Container: {Driver: d}}
	return n, d
}

func (n *Node) change(t *testing.T, f func(*store.Tx) error) error {
	t.Helper()
	return n.m.Store.Update(t.Context(), f)
}

// accepts records a workload of who's with these volumes, as a deploy does.
func (n *Node) accepts(t *testing.T, who mesh.PeerID, name string, id mesh.WorkloadID, mounts ...mesh.VolumeMount) error {
	t.Helper()
	s := mesh.Spec{Name: name, Runtime: mesh.Container, Image: "x", Volumes: mounts}.WithDefaults()
	return n.change(t, func(tx *store.Tx) error {
		if err := n.claimVolumes(tx, who, trust.Grant{Peer: who}, s, id, id); err != nil {
			return err
		}
		return supervisor.Put(tx, supervisor.Record{Workload: mesh.Workload{ID: id, Owner: who, Spec: s}, Desired: supervisor.Run})
	})
}

func (n *Node) disk(t *testing.T, who mesh.PeerID) (peer, host int64) {
	t.Helper()
	var u admission.Usage
	if err := n.m.Store.View(func(tx *store.Tx) error { return addVolumes(tx, who, &u) }); err != nil {
		t.Fatal(err)
	}
	return u.Peer.Resources.Disk, u.Host.Resources.Disk
}

func named(name string) mesh.VolumeMount { return mesh.VolumeMount{Name: name, Target: "/data"} }

const (
	first  = mesh.WorkloadID("aaaaaaaaaaaaaaaa")
	second = mesh.WorkloadID("bbbbbbbbbbbbbbbb")
	third  = mesh.WorkloadID("cccccccccccccccc")
)

// A volume is its owner's: nobody else sees it, has it removed, or gets it by its name.
func TestVolumesAreTheirOwners(t *testing.T) {
	n, _ := withShelf(t)
	for who, id := range map[mesh.PeerID]mesh.WorkloadID{ann: first, ben: second} {
		if err := n.accepts(t, who, "box", id, named("data")); err != nil {
			t.Fatal(err)
		}
	}
	mine, err := n.volumes(ann)
	if err != nil || len(mine) != 1 || mine[0].Owner != ann || len(mine[0].by) != 1 {
		t.Fatalf("%+v, %v", mine, err)
	}
	id := mine[0].ID
	for who, want := range map[mesh.PeerID]mesh.Kind{ann: mesh.None, ben: mesh.NotFound, n.m.Key.ID: mesh.None} {
		err := n.m.Store.View(func(tx *store.Tx) error { _, err := n.ownedVolume(tx, who, id); return err })
		if mesh.KindOf(err) != want {
			t.Errorf("%s: got %v, want %s", who, err, want)
		}
	}
	if err := n.change(t, n.removeVolume(ben, id).commit); mesh.KindOf(err) != mesh.NotFound {
		t.Errorf("removed by another: %v", err)
	}
	if _, _, _, _, err := n.beginBackup(ben, id); mesh.KindOf(err) != mesh.NotFound {
		t.Errorf("backed up by another: %v", err)
	}
	if all, err := n.volumes(n.m.Key.ID); err != nil || len(all) != 2 {
		t.Errorf("the machine's owner sees %+v, %v", all, err)
	}
	for who := range map[mesh.PeerID]bool{ann: true, ben: true} {
		got, err := OwnersVolumes(n.m.Store, who)
		if err != nil || len(got) != 1 || got[0].Name != "data" || (got[0].ID == id) != (who == ann) {
			t.Errorf("a workload of %s gets %+v, %v", who, got, err)
		}
	}
}

func TestVolumeRefusals(t *testing.T) {
	n, _ := withShelf(t)
	if err := n.accepts(t, ann, "box", first, named("data")); err != nil {
		t.Fatal(err)
	}
	if err := n.accepts(t, ann, "box", first, named("data")); err != nil {
		t.Errorf("its own again: %v", err)
	}
	larger := named("data")
	larger.Size = 2 << 30
	for rule, err := range map[string]error{
		"volume.in-use": n.accepts(t, ann, "other", second, named("data")),
		"volume.size":   n.accepts(t, ann, "box", first, larger),
	} {
		if e := mesh.AsError(err); e == nil || e.Kind != mesh.Conflict || e.Rule != rule {
			t.Errorf("got %v, want %s", err, rule)
		}
	}
	if err := n.change(t, func(tx *store.Tx) error {
		_, err := n.addVolume(tx, ann, trust.Grant{Peer: ann}, "half", 1<<30, third, volumeRestoring)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if e := mesh.AsError(n.accepts(t, ann, "third", third, named("half"))); e == nil || e.Rule != "volume.restoring" {
		t.Errorf("half of a volume: %v", e)
	}
	if got, err := OwnersVolumes(n.m.Store, ann); err != nil || len(got) != 1 {
		t.Errorf("a workload may get %+v, %v", got, err)
	}
	var last error
	for i := range maxVolumes {
		if last = n.accepts(t, ann, fmt.Sprint("w", i), mesh.NewWorkloadID([32]byte{byte(i), 1}), named(fmt.Sprint("v", i))); last != nil {
			break
		}
	}
	if e := mesh.AsError(last); e == nil || e.Rule != "host.volumes" {
		t.Errorf("more than %d: %v", maxVolumes, last)
	}
}

// A volume counts as disk from the moment it is promised until its file is gone.
func TestVolumesCountUntilTheyAreGone(t *testing.T) {
	n, d := withShelf(t)
	small := named("data")
	small.Size = 64 << 20
	s := mesh.Spec{Volumes: []mesh.VolumeMount{small, named("more")}}
	var want int64
	if err := n.m.Store.View(func(tx *store.Tx) (err error) { want, err = newVolumes(tx, ann, s); return err }); err != nil || want != 64<<20+mesh.DefaultVolume {
		t.Errorf("two new ones are %d bytes, %v", want, err)
	}
	if err := n.accepts(t, ann, "box", first, small); err != nil {
		t.Fatal(err)
	}
	if err := n.m.Store.View(func(tx *store.Tx) (err error) { want, err = newVolumes(tx, ann, s); return err }); err != nil || want != mesh.DefaultVolume {
		t.Errorf("one of them is there: %d bytes, %v", want, err)
	}
	if peer, host := n.disk(t, ann); peer != 64<<20 || host != 64<<20 {
		t.Errorf("in use: %d, %d", peer, host)
	}
	if peer, host := n.disk(t, ben); peer != 0 || host != 64<<20 {
		t.Errorf("another's: %d, %d", peer, host)
	}
	mine, err := n.volumes(ann)
	if err != nil {
		t.Fatal(err)
	}
	rm := n.removeVolume(ann, mine[0].ID).commit
	if e := mesh.AsError(n.change(t, rm)); e == nil || e.Rule != "volume.in-use" {
		t.Errorf("removed under a workload: %v", e)
	}
	if err := n.change(t, func(tx *store.Tx) error { return tx.Delete(store.Workloads, []byte(first)) }); err != nil {
		t.Fatal(err)
	}
	for range 2 { // also when it is asked twice
		if err := n.change(t, rm); err != nil {
			t.Fatal(err)
		}
	}
	d.refuse = 1
	if left, err := n.tendVolumes(t.Context()); err != nil || !left {
		t.Errorf("it cannot go yet: %t, %v", left, err)
	}
	if peer, _ := n.disk(t, ann); peer != 64<<20 {
		t.Errorf("its file is there, and %d bytes count", peer)
	}
	for range 2 {
		if left, err := n.tendVolumes(t.Context()); err != nil || left {
			t.Errorf("left: %t, %v", left, err)
		}
	}
	if peer, host := n.disk(t, ann); peer != 0 || host != 0 || len(d.removed) != 1 {
		t.Errorf("it is gone: %d, %d, removed %v", peer, host, d.removed)
	}
}

// What was not filled to its end is removed, by whoever comes first after a crash.
func TestHalfRestoredVolumesAreRemoved(t *testing.T) {
	n, d := withShelf(t)
	var v volumeRecord
	begin := func() {
		t.Helper()
		if err := n.change(t, func(tx *store.Tx) (err error) {
			v, err = n.addVolume(tx, ann, trust.Grant{Peer: ann}, "data", 1<<30, first, volumeRestoring)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	begin()
	carried, err := n.volumeWork.carry(ann)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.volumeWork.carry(ann); mesh.KindOf(err) != mesh.Overloaded {
		t.Errorf("two at once: %v", err)
	}
	filled := n.volumeWork.fill(v.ID)
	if _, err := n.tendVolumes(t.Context()); err != nil || len(d.removed) != 0 {
		t.Errorf("removed while it is filled: %v, %v", d.removed, err)
	}
	d.restore = func(io.Reader) error { return mesh.Errorf(mesh.Invalid, "the archive is cut off") }
	if _, _, err := n.fillVolume(t.Context(), d, v.ID, nil); mesh.KindOf(err) != mesh.Invalid {
		t.Errorf("got %v", err)
	}
	filled()
	carried()
	if _, err := n.tendVolumes(t.Context()); err != nil || len(d.removed) != 1 {
		t.Errorf("half of it stays: %v, %v", d.removed, err)
	}
	begin() // and then peerd dies
	if _, err := n.tendVolumes(t.Context()); err != nil || len(d.removed) != 2 {
		t.Errorf("after a crash half of it stays: %v, %v", d.removed, err)
	}
	begin()
	d.restore = func(io.Reader) error { return nil }
	if _, got, err := n.fillVolume(t.Context(), d, v.ID, nil); err != nil || got.State != volumeReady {
		t.Errorf("a whole one: %+v, %v", got, err)
	}
	if _, err := n.tendVolumes(t.Context()); err != nil || len(d.removed) != 2 {
		t.Errorf("it is removed: %v, %v", d.removed, err)
	}
}

// With a new key an owner keeps its volumes, and their files keep their user.
func TestVolumesFollowTheirOwnersKey(t *testing.T) {
	n, _ := withShelf(t)
	if err := n.accepts(t, ann, "box", first, named("data")); err != nil {
		t.Fatal(err)
	}
	if err := n.change(t, func(tx *store.Tx) error {
		if err := rekeyVolumes(tx, ann, ben); err != nil {
			return err
		}
		return tx.Delete(store.Workloads, []byte(first))
	}); err != nil {
		t.Fatal(err)
	}
	if err := n.accepts(t, ben, "box", second, named("data"), mesh.VolumeMount{Name: "more", Target: "/more"}); err != nil {
		t.Fatal(err)
	}
	got, err := OwnersVolumes(n.m.Store, ben)
	if err != nil || len(got) != 2 || got[0].User != got[1].User || got[0].User != volumeUser(ann) {
		t.Errorf("%+v, %v", got, err)
	}
	if left, err := OwnersVolumes(n.m.Store, ann); err != nil || len(left) != 0 {
		t.Errorf("the old key has %+v, %v", left, err)
	}
	if err := n.dropVolumes(t.Context(), ben); err != nil {
		t.Fatal(err)
	}
	if left, err := OwnersVolumes(n.m.Store, ben); err != nil || len(left) != 0 {
		t.Errorf("a peer that was removed has %+v, %v", left, err)
	}
}

// A file that belongs to no volume is told of, and no other.
func TestStrayVolumeFiles(t *testing.T) {
	n, d := withShelf(t)
	if err := n.accepts(t, ann, "box", first, named("data")); err != nil {
		t.Fatal(err)
	}
	mine, err := n.volumes(ann)
	if err != nil {
		t.Fatal(err)
	}
	file := func(id mesh.VolumeID) driver.VolumeFile {
		return driver.VolumeFile{Path: "/home/volumes/" + string(id) + ".img", Bytes: 32 << 20}
	}
	d.files = map[mesh.VolumeID]driver.VolumeFile{mine[0].ID: file(mine[0].ID)}
	if got := n.strayVolumes(t.Context(), d); len(got) != 0 {
		t.Errorf("its own are called strays: %+v", got)
	}
	d.files = map[mesh.VolumeID]driver.VolumeFile{mine[0].ID: file(mine[0].ID), "ssssssssssssssss": file("ssssssssssssssss")}
	got := n.strayVolumes(t.Context(), d)
	if len(got) != 1 || !strings.Contains(got[0].Detail, "/home/volumes/ssssssssssssssss.img") || strings.Contains(got[0].Detail, string(mine[0].ID)) || !strings.Contains(got[0].Detail, "32 MiB") || got[0].Fix == "" {
		t.Errorf("got %+v", got)
	}
}

// Before a deploy it is said which of its volumes and secrets are there, and which not.
func TestExplainVolumesAndSecrets(t *testing.T) {
	n, _ := withShelf(t)
	if err := n.accepts(t, ann, "box", first, named("data")); err != nil {
		t.Fatal(err)
	}
	if err := n.change(t, func(tx *store.Tx) error {
		return tx.PutJSON(store.Secrets, secretKey(ann, "db"), keptSecret{Owner: ann, Name: "db", Set: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)})
	}); err != nil {
		t.Fatal(err)
	}
	s := mesh.Spec{
		Name: "box", Runtime: mesh.Container, Image: "x",
		Volumes: []mesh.VolumeMount{named("data"), {Name: "new", Target: "/new", Size: 64 << 20}},
		Secrets: []mesh.SecretMount{{Name: "db"}, {Name: "api"}},
	}
	var volumes, secrets, others []mesh.Check
	if err := n.m.Store.View(func(tx *store.Tx) (err error) {
		if volumes, err = explainVolumes(tx, ann, s, first, nil); err != nil {
			return err
		}
		if others, err = explainVolumes(tx, ann, s, second, mesh.Errorf(mesh.Unsupported, "no loop devices")); err != nil {
			return err
		}
		secrets, err = explainSecrets(tx, ann, s)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		got               mesh.Check
		rule, want, limit string
		pass              bool
	}{
		{volumes[1], "volume", "data at /data", "there, 1024 MiB", true},
		{volumes[2], "volume", "new at /new", "not there: made with 64 MiB", true},
		{others[0], "host.volumes", "volumes", "", false},
		{others[1], "volume.in-use", "data at /data", "there, 1024 MiB", false},
		{secrets[0], "secret", "db", "there, set 2026-01-02 03:04:05 UTC", true},
		{secrets[1], "secret.missing", "api", "not there", false},
	} {
		if g := want.got; g.Rule != want.rule || g.Want != want.want || g.Limit != want.limit || g.Pass != want.pass || !g.Pass && g.Reason == "" {
			t.Errorf("%d: got %+v, want %+v", i, g, want)
		}
	}
}

// What a workload could go back to is not pruned from under it.
func TestPruneKeepsWhatARollbackNeeds(t *testing.T) {
	n, _ := withShelf(t)
	old, _ := anImage(t, aLayer(t, "old", 100))
	now, _ := anImage(t, aLayer(t, "now", 100))
	unused, _ := anImage(t, aLayer(t, "unused", 100))
	spec := func(p pushedImage) mesh.Spec {
		return mesh.Spec{Name: "box", Runtime: mesh.Container, Image: p.ref()}.WithDefaults()
	}
	r := supervisor.Record{Workload: mesh.Workload{ID: first, Owner: sender, Spec: spec(now)}, Desired: supervisor.Run, Revision: 2, Given: 2}
	if err := n.change(t, func(tx *store.Tx) error {
		for _, p := range []pushedImage{old, now, unused} {
			p.State = imageReady
			if err := putImage(tx, p); err != nil {
				return err
			}
		}
		for i, p := range []pushedImage{old, now} {
			if err := supervisor.PutRevision(tx, first, supervisor.Revision{Number: i + 1, Spec: spec(p), By: sender, Served: true}, 2); err != nil {
				return err
			}
		}
		return supervisor.Put(tx, r)
	}); err != nil {
		t.Fatal(err)
	}
	prune := func() (ids []string) {
		t.Helper()
		var gone []pushedImage
		if err := n.change(t, n.prune(n.m.Key.ID, trust.Grant{}, &gone).commit); err != nil {
			t.Fatal(err)
		}
		for _, p := range gone {
			ids = append(ids, p.Image.ID)
		}
		return ids
	}
	if got := prune(); len(got) != 1 || got[0] != unused.Image.ID {
		t.Errorf("pruned %v; the workload runs from %s and could go back to %s", got, now.Image.ID, old.Image.ID)
	}
	// Once it is being removed there is no way back.
	r.Desired = supervisor.Remove
	if err := n.change(t, func(tx *store.Tx) error { return supervisor.Put(tx, r) }); err != nil {
		t.Fatal(err)
	}
	if got := prune(); len(got) != 2 { // with the one that is on its way out
		t.Errorf("then pruned %v", got)
	}
}
