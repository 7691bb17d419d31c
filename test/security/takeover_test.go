package security

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/gateway"
	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
	"peercompute/test/internal/testmesh"
)

// A name is withdrawn and claimed by another peer a thousand times, while visitors ask
// for it: whom they are sent to is its owner, or nobody (test plan, V8).
func TestTakeoverRaces(t *testing.T) {
	t.Parallel()
	table, err := gateway.NewTable(gateway.TableConfig{Domain: "apps.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	bob, mallory := newKey(t).ID, newKey(t).ID
	const id = mesh.WorkloadID("aaaaaaaaaaaaaaaa")
	owner := gateway.Route{Publisher: bob, Workload: id, Name: "shop"}
	label := mesh.Label(owner.Name, bob, id)
	host := label + ".apps.example.org"
	var asked, served, stolen atomic.Int64
	stop := make(chan struct{})
	var visitors sync.WaitGroup
	for range 4 {
		visitors.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				asked.Add(1)
				if r, ok := table.Lookup(host); ok {
					served.Add(1)
					if r.Publisher != bob {
						stolen.Add(1)
					}
				}
			}
		})
	}
	names := []string{"shop", "", label, "shop-shop"}
	for i := range scale(1000) {
		if _, err := table.Set(owner); err != nil {
			t.Fatal(err)
		}
		var race sync.WaitGroup
		race.Go(func() { table.Withdraw(bob, id) })
		race.Go(func() { // what a label is made of is all that anybody can choose
			if r, err := table.Set(gateway.Route{Publisher: mallory, Workload: id, Name: names[i%len(names)]}); err == nil && r.Label == label {
				t.Errorf("another peer was given the label %s", label)
			}
		})
		race.Go(func() { table.Withdraw(mallory, id) })
		race.Wait()
	}
	close(stop)
	visitors.Wait()
	t.Logf("%d look-ups in %d races: %d to the owner, %d to another", asked.Load(), scale(1000), served.Load()-stolen.Load(), stolen.Load())
	if stolen.Load() != 0 || served.Load() == 0 {
		t.Errorf("%d of %d look-ups went to another peer", stolen.Load(), served.Load())
	}
}

// The same with real nodes: a stopped workload is gone from the web within a second,
// another peer that publishes under the same name gets another address, and neither a
// stop nor the gateway's restart ever sends a visitor there.
func TestTakeover(t *testing.T) {
	// Not beside this package's other tests: it has a limit of a second.
	m := testmesh.New(t)
	alice, _, gw := m.Trio()
	mallory := m.Peer("mallory")
	m.Route(mallory, gw)
	web := m.Web(gw)
	get := func(url string) (int, string) {
		res, err := web.Get(url)
		if err != nil {
			return 0, ""
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b)
	}
	url := strings.TrimSpace(alice.Must("deploy", testmesh.Tiny(t, "the owner's"), "--peer", "bob", "--name", "shop", "--publish"))
	var visits, stolen atomic.Int64
	var visitors sync.WaitGroup
	visit := func(url string) (stop chan struct{}) {
		stop = make(chan struct{})
		visitors.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
				if code, body := get(url); code == http.StatusOK {
					visits.Add(1)
					if !strings.Contains(body, "the owner's") {
						stolen.Add(1)
					}
				}
			}
		})
		return stop
	}
	stop := visit(url)
	within(t, 30*time.Second, "visits", func() bool { return visits.Load() > 0 })
	for round := range 3 {
		alice.Must("stop", "shop", "--peer", "bob")
		stall, stopped := testkit.WatchStall(t), time.Now() // the stop is acknowledged
		within(t, 20*time.Second, "the name to be gone", func() bool { code, _ := get(url); return code == http.StatusNotFound })
		gone := time.Since(stopped) - stall.Lost()
		theirs := strings.TrimSpace(mallory.Must("deploy", testmesh.Tiny(t, "mallory's"), "--peer", "self", "--name", fmt.Sprint("shop", strings.Repeat("x", round)), "--publish"))
		if theirs == url {
			t.Fatal("another peer was given the owner's address")
		}
		t.Logf("gone %s after the stop was acknowledged; the other peer has %s", gone.Round(time.Millisecond), theirs)
		if gone > time.Second {
			t.Errorf("the name was gone %s after the stop was acknowledged, want at most a second", gone)
		}
		gw.Kill()
		gw.Start()
		within(t, time.Minute, "the other peer's name after the gateway's restart", func() bool { code, _ := get(theirs); return code == http.StatusOK })
		if code, _ := get(url); code != http.StatusNotFound {
			t.Errorf("after the gateway's restart a stopped workload's name answers %d", code)
		}
		alice.Must("rm", "-f", "shop", "--peer", "bob")
		url2 := strings.TrimSpace(alice.Must("deploy", testmesh.Tiny(t, "the owner's"), "--peer", "bob", "--name", "shop", "--publish"))
		if url2 == url || url2 == theirs {
			t.Errorf("a new workload has an old address: %s", url2)
		}
		close(stop)
		stop, url = visit(url2), url2
	}
	close(stop)
	visitors.Wait()
	if stolen.Load() != 0 {
		t.Errorf("%d of %d visits to the owner's name reached another peer", stolen.Load(), visits.Load())
	}
}
