package usernet

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"peercompute/pkg/mesh"
)

func query(t testing.TB, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	b, err := (&dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}).Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// names is a lookup that knows one name, with an address of each kind.
func names(_ context.Context, name string) ([]netip.Addr, error) {
	switch name {
	case "good.example":
		return []netip.Addr{netip.MustParseAddr("25.1.1.1"), netip.MustParseAddr("2a00::1")}, nil
	case "lan.example":
		return nil, mesh.Errorf(mesh.Denied, "no")
	case "slow.example":
		return nil, mesh.Errorf(mesh.Unavailable, "no")
	}
	return nil, mesh.Errorf(mesh.NotFound, "no")
}

func TestAnswers(t *testing.T) {
	for _, tc := range []struct {
		name  string
		kind  dnsmessage.Type
		code  dnsmessage.RCode
		addrs []string
	}{
		{"good.example.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, []string{"25.1.1.1"}},
		{"GOOD.example.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, []string{"25.1.1.1"}},
		{"good.example.", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, nil},
		{"good.example.", dnsmessage.TypeTXT, dnsmessage.RCodeSuccess, nil},
		{"lan.example.", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		{"none.example.", dnsmessage.TypeAAAA, dnsmessage.RCodeNameError, nil},
		{"slow.example.", dnsmessage.TypeA, dnsmessage.RCodeServerFailure, nil},
	} {
		var m dnsmessage.Message
		if err := m.Unpack(answer(t.Context(), query(t, tc.name, tc.kind), names)); err != nil {
			t.Errorf("%s %s: %v", tc.name, tc.kind, err)
			continue
		}
		var addrs []string
		for _, a := range m.Answers {
			addrs = append(addrs, netip.AddrFrom4(a.Body.(*dnsmessage.AResource).A).String())
		}
		if m.ID != 7 || !m.Response || m.RCode != tc.code || !slices.Equal(addrs, tc.addrs) || m.Questions[0].Name.String() != tc.name {
			t.Errorf("%s %s: got %s", tc.name, tc.kind, m.GoString())
		}
	}
}

func TestAnswersToOthersThanQueries(t *testing.T) {
	reply := query(t, "good.example.", dnsmessage.TypeA)
	reply[2] |= 0x80 // a response: answering it would make loops
	for name, b := range map[string][]byte{"nothing": nil, "a response": reply, "too long": append(query(t, "good.example.", dnsmessage.TypeA), make([]byte, maxQuery)...)} {
		if got := answer(t.Context(), b, names); got != nil {
			t.Errorf("%s is answered with %x", name, got)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(query(f, "good.example.", dnsmessage.TypeA))
	f.Add(query(f, "lan.example.", dnsmessage.TypeAAAA))
	f.Add([]byte{0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'a'})
	f.Fuzz(func(t *testing.T, q []byte) {
		b := answer(t.Context(), q, names)
		if b == nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(b); err != nil || !m.Response || len(b) > 4*maxQuery {
			t.Errorf("%x is answered with %x: %v", q, b, err)
		}
	})
}
