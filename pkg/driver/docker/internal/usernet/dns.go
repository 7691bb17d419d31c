package usernet

import (
	"context"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"peercompute/pkg/mesh"
)

const (
	dnsPort    = 53
	maxQuery   = 512 // bytes; a question is one name of at most 255
	maxAnswers = 16
	ttl        = 30 // seconds; the resolver that we ask tells none
)

// answer answers one DNS query (RFC 1035): the IPv4 addresses of a name. A question
// for others of its records is answered with none of them, so that programs which ask
// for IPv6 as well go on. It returns nil for what is not a query.
func answer(ctx context.Context, query []byte, lookup func(context.Context, string) ([]netip.Addr, error)) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response || len(query) > maxQuery {
		return nil
	}
	reply := dnsmessage.Header{ID: h.ID, Response: true, OpCode: h.OpCode, RecursionDesired: h.RecursionDesired, RecursionAvailable: true}
	q, err := p.Question()
	if err != nil {
		reply.RCode = dnsmessage.RCodeFormatError
		return pack(reply, nil, nil)
	}
	switch {
	case h.OpCode != 0 || q.Class != dnsmessage.ClassINET:
		reply.RCode = dnsmessage.RCodeNotImplemented
		return pack(reply, &q, nil)
	case q.Type != dnsmessage.TypeA && q.Type != dnsmessage.TypeAAAA:
		return pack(reply, &q, nil)
	}
	addrs, err := lookup(ctx, strings.ToLower(strings.TrimSuffix(q.Name.String(), ".")))
	switch kind := mesh.KindOf(err); {
	case err == nil:
	case kind == mesh.NotFound || kind == mesh.Denied:
		reply.RCode = dnsmessage.RCodeNameError
	default:
		reply.RCode = dnsmessage.RCodeServerFailure
	}
	if q.Type != dnsmessage.TypeA {
		addrs = nil
	}
	return pack(reply, &q, addrs)
}

// pack writes a reply; nil if it cannot be written.
func pack(h dnsmessage.Header, q *dnsmessage.Question, addrs []netip.Addr) []byte {
	m := dnsmessage.Message{Header: h}
	if q != nil {
		m.Questions = []dnsmessage.Question{*q}
	}
	for i, a := range addrs {
		if i < maxAnswers && a.Is4() {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: ttl},
				Body:   &dnsmessage.AResource{A: a.As4()},
			})
		}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}
