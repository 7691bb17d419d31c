package mesh

import (
	"strings"
	"testing"
)

func TestPushedRef(t *testing.T) {
	owner := PeerID("\x00\x24\x08\x01\x12\x20" + strings.Repeat("a", 32))
	id := "sha256:" + strings.Repeat("0f", 32)
	ref := PushedRef(owner, id)
	if ref != "peercompute.invalid/bafzaajaiaejcaylbmfqwcylbmfqwcylbmfqwcylbmfqwcylbmfqwcylbmfqwcylb:"+id[7:] || strings.ToLower(ref) != ref {
		t.Errorf("it is called %s", ref)
	}
	if repository, got, ok := ParsePushed(ref); !ok || got != id || repository != PushedRepository(owner) || !IsPushed(ref) {
		t.Errorf("read as %s %s %t", repository, got, ok)
	}
	for _, bad := range []string{
		"", "nginx", "peercompute.invalid", "peercompute.invalid/x", "peercompute.invalid/x:1", "peercompute.invalid/x@" + id,
		"peercompute.invalid/a/b:" + id[7:], "evil.example/peercompute.invalid/x:" + id[7:], "Peercompute.invalid/x:" + id[7:],
	} {
		if _, _, ok := ParsePushed(bad); ok {
			t.Errorf("%q is taken for a pushed image", bad)
		}
	}
	if IsPushed("nginx") || IsPushed("x.peercompute.invalid/y") || !IsPushed("peercompute.invalid:80/y") {
		t.Error("the domain is misread")
	}
}
