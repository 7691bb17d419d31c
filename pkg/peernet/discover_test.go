package peernet

import (
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

const idA, idB = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X", "12D3KooWH3uVF6wv47WnArKHk5p6cvgCJEb74UTmxztmQDc298L3"

// What is announced is kept only as far as it is well formed, and in bounds.
func TestAnnouncementsAreRead(t *testing.T) {
	self, err := mesh.ParsePeerID(idB)
	if err != nil {
		t.Fatal(err)
	}
	h := neighbours{self: self}
	addr := "dnsaddr=/ip4/192.0.2.1/tcp/4001/p2p/"
	h.add([]string{"name=alice", addr + idA, addr + idA, "dnsaddr=/ip4/192.0.2.2/tcp/4001/p2p/" + idA, addr + idB})
	h.add([]string{"name=other"})                        // nobody's
	h.add([]string{"name=\x1b[31mred", "dnsaddr=junk"})  // junk
	h.add([]string{"dnsaddr=/p2p/" + idA})               // no address
	h.add([]string{"dnsaddr=/ip4/192.0.2.3/tcp/4001"})   // no ID
	h.add([]string{"name=B\u202eob", addr + "12D3KooW"}) // half an ID
	if len(h.found) != 1 || h.found[0].Name != "alice" || len(h.found[0].Addrs) != 2 || h.found[0].Addrs[0] != "/ip4/192.0.2.1/tcp/4001/p2p/"+idA {
		t.Fatalf("read %+v", h.found)
	}
	var odd neighbours
	odd.add([]string{"name=\x1b[31mred", addr + idA})
	if len(odd.found) != 1 || odd.found[0].Name != "" {
		t.Errorf("read %+v, want its address and no name", odd.found)
	}
	for i := range 3 * maxFoundAddrs {
		h.add([]string{"dnsaddr=/ip4/192.0.2.9/tcp/" + strings.Repeat("1", 1+i%4) + "0/p2p/" + idA, "dnsaddr=/ip4/192.0.2.8/udp/" + strings.Repeat("2", 1+i%4) + "0/quic-v1/p2p/" + idA})
	}
	if n := len(h.found[0].Addrs); n > maxFoundAddrs {
		t.Errorf("%d addresses of one", n)
	}
	for i := range 3 * maxFound {
		n := newPeerID(t, byte(i), byte(i>>8))
		h.add([]string{addr + n.String()})
	}
	if len(h.found) != maxFound {
		t.Errorf("%d neighbours, want %d", len(h.found), maxFound)
	}
}

func FuzzAnnouncement(f *testing.F) {
	f.Add("name=alice\ndnsaddr=/ip4/192.0.2.1/tcp/4001/p2p/" + idA)
	f.Add("dnsaddr=/dns4/a.local/udp/1/quic-v1/p2p/" + idA + "\nname=-")
	f.Fuzz(func(t *testing.T, text string) {
		var h neighbours
		h.add(strings.Split(text, "\n"))
		for _, n := range h.found {
			if n.Name != "" && !mesh.ValidLabel(n.Name) || len(n.Addrs) == 0 || len(n.Addrs) > maxFoundAddrs {
				t.Fatalf("kept %+v", n)
			}
			for _, a := range n.Addrs {
				if _, id, err := ParseAddr(a); err != nil || id != n.ID || strings.ContainsFunc(a, func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Fatalf("kept the address %q of %s: %v", a, n.ID, err)
				}
			}
		}
	})
}
