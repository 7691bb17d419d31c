package mesh

import (
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
)

// pushedHost is the registry that pushed images are named under. Nobody can ever
// serve it: RFC 2606 keeps the domain from existing.
const pushedHost = "peercompute.invalid"

// PushedRepository is where the images are named that a peer pushed here; owner is
// the first key by which the peer was known here. The name holds the peer's ID in
// its lower-case form, because a repository has no capitals.
func PushedRepository(owner PeerID) string {
	return pushedHost + "/" + peer.ToCid(owner).String()
}

// PushedRef is the one name that an image pushed by owner has here. id is the image
// ID ("sha256:…"), so that nothing of the name is the pusher's choice.
func PushedRef(owner PeerID, id string) string {
	return PushedRepository(owner) + ":" + strings.TrimPrefix(id, "sha256:")
}

// IsPushed reports whether a reference is in the domain of pushed images, in good
// form or not.
func IsPushed(ref string) bool {
	host, _, _ := strings.Cut(ref, "/")
	host, _, _ = strings.Cut(host, ":")
	return strings.EqualFold(host, pushedHost)
}

// ParsePushed takes a reference apart that PushedRef made.
func ParsePushed(ref string) (repository, id string, ok bool) {
	path, ok := strings.CutPrefix(ref, pushedHost+"/")
	owner, hex, tagged := strings.Cut(path, ":")
	id = "sha256:" + hex
	if !ok || !tagged || !ValidDigest(id) || strings.Trim(owner, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return "", "", false
	}
	return pushedHost + "/" + owner, id, true
}
