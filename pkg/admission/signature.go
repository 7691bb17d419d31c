package admission

import (
	"slices"
	"strings"

	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
)

// signature asks whether one of the keys that the grant names stands behind what is
// to run. The digest that was signed is one that the spec pins, and the runtime
// refuses whatever does not have it.
func signature(g trust.Grant, s mesh.Spec) Row {
	row := Row{Kind: mesh.Denied, Check: mesh.Check{Rule: "grant.signed-by", Want: "no signature", Limit: "not asked for"}}
	if len(g.Quota.SignedBy) == 0 {
		row.Pass = true
		return row
	}
	digest := pinned(s)
	row.Want = digest
	var names []string
	for _, text := range g.Quota.SignedBy {
		k, err := mesh.ParseSigningKey(text)
		if err != nil {
			names = append(names, "a key that cannot be read")
			continue
		}
		names = append(names, k.Fingerprint())
		row.Pass = row.Pass || slices.ContainsFunc(s.Signatures, func(sig mesh.Signature) bool { return k.Signed(s.Runtime, digest, sig) })
	}
	row.Limit = strings.Join(names, ", ")
	switch {
	case digest == "":
		row.Want = "no digest"
		row.Reason = "what you run there must be signed, and so be named by its digest"
	case len(s.Signatures) == 0:
		row.Reason = "what you run there must be signed by " + strings.Join(names, " or ") + " (cosign; peerctl deploy --signature FILE)"
	default:
		row.Reason = "no signature that came along is one of " + digest + " by " + strings.Join(names, " or ")
	}
	return row
}

// pinned is the digest that decides what runs; empty = its name does.
func pinned(s mesh.Spec) string {
	if s.Digest == "" && s.Runtime == mesh.Container {
		at, _ := imageNames(s.Image)
		return at
	}
	return s.Digest
}
