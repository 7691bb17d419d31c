package admission

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
)

// Whatever jobs are admitted, fail to commit, end, end twice, are cut off by a crash
// or see midnight: what is reserved and burnt is as in the model, never over the
// quota by admission, and freed exactly once.
func TestFuelAgainstAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		path := filepath.Join(t.TempDir(), fmt.Sprintf("%d.db", time.Now().UnixNano()))
		st, err := store.Open(path)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { st.Close() }()
		ctx, now := context.Background(), time.Date(2026, 11, 25, 23, 0, 0, 0, time.UTC)
		const alice, quota = mesh.PeerID("alice"), 100
		g := trust.Grant{Peer: alice, Allow: trust.Deploy, Quota: trust.Unbounded(1000, mesh.Resources{})}
		g.Quota.FuelDay = quota
		held, burnt, next := map[string]uint64{}, uint64(0), 0
		jobs := func() []string {
			out := []string{"none"}
			for i := range next {
				out = append(out, fmt.Sprint(i))
			}
			return out
		}
		sum := func() (n uint64) {
			for _, u := range held {
				n += u
			}
			return n
		}
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"admit", "admit", "fail", "end", "burn", "crash", "midnight"}).Draw(rt, "step") {
			case "admit", "fail":
				fails := rapid.Bool().Draw(rt, "the transaction fails")
				want := rapid.Uint64Range(1, 60).Draw(rt, "wants")
				job, refused := fmt.Sprint(next), false
				next++
				err := st.Update(ctx, func(tx *store.Tx) error {
					a, err := readAccount(tx, alice, now)
					if err != nil {
						return err
					}
					u := Usage{FuelToday: a.Burnt, FuelOpens: nextDay(now)}
					for _, n := range a.Held {
						u.FuelToday += n
					}
					if refused = !fuelDay(g, mesh.Spec{Runtime: mesh.Wasm, Resources: mesh.Resources{Fuel: want}}, u).Pass; refused {
						return context.Canceled
					}
					if err := HoldFuel(tx, alice, job, want, now); err != nil {
						return err
					}
					if fails {
						return context.Canceled
					}
					return nil
				})
				if refused != (burnt+sum()+want > quota) {
					rt.Fatalf("refused %t with %d burnt, %d held, %d wanted of %d", refused, burnt, sum(), want, quota)
				}
				if err == nil {
					held[job] = want
				}
			case "end": // perhaps one that ended before, or never began
				job := rapid.SampledFrom(jobs()).Draw(rt, "job")
				used := rapid.Uint64Range(0, held[job]).Draw(rt, "used")
				var total uint64
				if err := st.Update(ctx, func(tx *store.Tx) (err error) { total, err = SettleFuel(tx, alice, job, used, now); return err }); err != nil {
					rt.Fatal(err)
				}
				if _, ok := held[job]; ok {
					delete(held, job)
					burnt += used
				}
				if total != burnt {
					rt.Fatalf("settled to %d, want %d", total, burnt)
				}
			case "burn":
				used := rapid.Uint64Range(0, 30).Draw(rt, "burns")
				if err := st.Update(ctx, func(tx *store.Tx) error { _, err := BurnFuel(tx, alice, used, now); return err }); err != nil {
					rt.Fatal(err)
				}
				burnt += used
			case "crash":
				st.Close()
				if st, err = store.Open(path); err != nil {
					rt.Fatal(err)
				}
				var left int
				if err := st.Update(ctx, func(tx *store.Tx) (err error) { _, left, err = SettleCrash(tx, now); return err }); err != nil {
					rt.Fatal(err)
				}
				if left != len(held) {
					rt.Fatalf("%d jobs were left, want %d", left, len(held))
				}
				burnt += sum()
				clear(held)
			case "midnight":
				now = now.AddDate(0, 0, 1)
				burnt = 0
			}
			err := st.View(func(tx *store.Tx) error {
				a, err := readAccount(tx, alice, now)
				var reserved uint64
				for _, n := range a.Held {
					reserved += n
				}
				if a.Burnt != burnt || reserved != sum() || len(a.Held) != len(held) {
					rt.Fatalf("on disk %d burnt, %d held by %d jobs; want %d, %d, %d", a.Burnt, reserved, len(a.Held), burnt, sum(), len(held))
				}
				return err
			})
			if err != nil {
				rt.Fatal(err)
			}
		}
	})
}

// A clock set back a day gives no fuel twice.
func TestFuelAndMovedClocks(t *testing.T) {
	b := newBench(t)
	day := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	err := b.store.Update(context.Background(), func(tx *store.Tx) error {
		if _, err := BurnFuel(tx, b.alice, 70, day); err != nil {
			return err
		}
		for now, want := range map[time.Time]uint64{day: 70, day.AddDate(0, 0, -1): 70, day.AddDate(0, 0, 1): 0} {
			if got, opens, err := Burnt(tx, b.alice, now); err != nil || got != want || !opens.After(now) {
				t.Errorf("on %s %d are burnt (%v), want %d", now, got, err, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
