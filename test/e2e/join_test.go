package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"peercompute/test/internal/testmesh"
)

// Two strangers pair and deploy in three commands.
func TestPairAndDeployInThreeCommands(t *testing.T) {
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	hello := testmesh.Wasm(t, "hello-wasm")

	token := strings.TrimSpace(bob.Must("peers", "invite", "--allow", "deploy", "--name", "alice", "--as", "bob"))
	alice.Must("peers", "join", token)
	alice.Must("deploy", hello, "--peer", "bob", "--name", "hello")

	var list []struct{ Name, Peer, State string }
	if err := json.Unmarshal([]byte(alice.Must("ps", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Peer != "bob" || list[0].State != "running" {
		t.Fatalf("alice sees %+v, want hello running on bob", list)
	}
	// The token is used up; a second machine gets nowhere with it.
	carol := m.Peer("carol")
	r := carol.Ctl("peers", "join", token)
	if r.Code == 0 {
		t.Fatal("a used token lets a second machine in")
	}
	if got := strings.TrimSpace(carol.Must("peers", "ls", "-o", "json")); got != "[]" {
		t.Fatalf("after a failed join carol trusts %s", got)
	}
	if got := bob.Must("peers", "ls", "-o", "json"); strings.Contains(got, carol.ID().String()) {
		t.Fatal("bob trusts carol")
	}
	// Trust came with what the invite allowed, and nothing the other way.
	if r := bob.Ctl("deploy", hello, "--peer", "alice"); r.Code == 0 || !strings.Contains(r.Stderr, "grant.deploy") {
		t.Fatalf("bob deploys on alice, who allowed nothing: %+v", r)
	}
}

func TestInvitesAreListedAndWithdrawn(t *testing.T) {
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	var made struct{ ID, Token string }
	if err := json.Unmarshal([]byte(bob.Must("peers", "invite", "-o", "json")), &made); err != nil {
		t.Fatal(err)
	}
	if list := bob.Must("peers", "invites", "-o", "json"); !strings.Contains(list, made.ID) || strings.Contains(list, "peerjoin1-") {
		t.Fatalf("the list is %s; want the invite and no token", list)
	}
	bob.Must("peers", "uninvite", made.ID)
	if r := alice.CtlIn([]byte(made.Token+"\n"), "peers", "join", "-"); r.Code == 0 {
		t.Fatal("joined by a withdrawn invite")
	}
	if r := alice.Ctl("peers", "join", made.Token[:20]); r.Code == 0 || !strings.Contains(r.Stderr, "not a whole invite") {
		t.Fatalf("half a token: %+v", r)
	}
}
