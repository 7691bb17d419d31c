package admission

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
)

// images asks whether what is to run is among what the grant allows.
//
// A pattern is judged by the reference as the engine will read it. A name is what
// the engine has under that name or pulls by it; a digest must be pinned by the
// spec or the reference, and then the runtime refuses whatever does not have it.
func images(g trust.Grant, s mesh.Spec) Row {
	if s.Runtime == mesh.Container && mesh.IsPushed(s.Image) {
		return pushed(g, s.Image, s.Digest)
	}
	what := s.Image
	if s.Runtime == mesh.Wasm {
		what = s.Digest
	}
	row := Row{Kind: mesh.Denied, Check: mesh.Check{
		Rule: "grant.images", Want: what, Limit: strings.Join(g.Quota.Images, ", "), Pass: imageAllowed(g.Quota.Images, s),
	}}
	list := row.Limit
	if list == "" {
		list = "none"
	}
	kind, ask := "the image "+s.Image, s.Image
	if s.Runtime == mesh.Wasm {
		kind, ask = "the module "+s.Digest, s.Digest
	}
	row.Reason = fmt.Sprintf("%s is not among what you may run there (%s)", kind, list)
	if s.Runtime == mesh.Container && s.Digest == "" && slices.ContainsFunc(g.Quota.Images, mesh.ValidDigest) {
		row.Reason += "; where a digest is allowed the image must be named by it"
	}
	row.Ask = "--images " + strings.Join(append(slices.Clone(g.Quota.Images), ask), ",")
	return row
}

// pushed asks whether a peer may have, or run, an image that it pushed itself. Such an
// image is called by its digest only, so no pattern of names can mean it.
func pushed(g trust.Grant, ref, digest string) Row {
	repository, id, ok := mesh.ParsePushed(ref)
	row := Row{Kind: mesh.Denied, Check: mesh.Check{Rule: "grant.images", Want: "pushed " + id, Limit: strings.Join(g.Quota.Images, ", ")}}
	switch {
	case !ok || g.Peer == "" || repository != mesh.PushedRepository(g.First()):
		row.Want = ref
		row.Reason = "the image " + ref + " is not one that you pushed there"
	case id != digest:
		row.Reason = "a pushed image must be pinned by its own digest"
	default:
		row.Pass = slices.ContainsFunc(g.Quota.Images, func(p string) bool {
			return p == trust.AnyImage || p == trust.AnyPushed || p == id
		})
		list := row.Limit
		if list == "" {
			list = "none"
		}
		row.Reason = fmt.Sprintf("the image %s, pushed by you, is not among what you may run there (%s)", id, list)
		row.Ask = "--images " + strings.Join(append(slices.Clone(g.Quota.Images), trust.AnyPushed), ",")
	}
	return row
}

// MayUseLayers reports whether a peer may build upon an image that is here, which is
// to read it: if it may run it, or pushed it. names are all that the engine calls it.
func MayUseLayers(g trust.Grant, id string, names []string) bool {
	theirs := false
	for _, n := range names {
		s := mesh.Spec{Runtime: mesh.Container, Image: n, Digest: id}
		if !mesh.IsPushed(n) {
			theirs = true
			if imageAllowed(g.Quota.Images, s) {
				return true
			}
		} else if repository, _, ok := mesh.ParsePushed(n); ok && g.Peer != "" && repository == mesh.PushedRepository(g.First()) {
			return true
		}
	}
	// One without a name is found by its ID. One that only others pushed is not.
	return (theirs || len(names) == 0) && imageAllowed(g.Quota.Images, mesh.Spec{Runtime: mesh.Container, Image: id})
}

func imageAllowed(patterns []string, s mesh.Spec) bool {
	digest, names := pinned(s), []string(nil)
	if s.Runtime == mesh.Container {
		_, names = imageNames(s.Image)
	}
	for _, p := range patterns {
		switch {
		case p == trust.AnyImage:
			return true
		case p == trust.AnyModule:
			if s.Runtime == mesh.Wasm {
				return true
			}
		case p == trust.AnyPushed: // says nothing of an image that merely is called so
		case strings.HasPrefix(p, "sha256:"):
			if mesh.ValidDigest(p) && p == digest {
				return true
			}
		case slices.ContainsFunc(names, func(n string) bool { return nameMatches(p, n) }):
			return true
		}
	}
	return false
}

func nameMatches(pattern, name string) bool {
	if strings.HasSuffix(pattern, "/") {
		return strings.HasPrefix(name, pattern)
	}
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// imageNames reads a reference like the engine does: the digest in it, if any, and
// the names that a pattern may mean, short and in full, with the tag and without.
func imageNames(ref string) (digest string, names []string) {
	if mesh.ValidDigest(ref) {
		return ref, nil
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", nil
	}
	if d, ok := named.(reference.Digested); ok {
		digest = d.Digest().String()
		named = reference.TrimNamed(named) // the digest decides; a tag beside it is for people
		return digest, []string{reference.FamiliarName(named), named.Name()}
	}
	tagged := reference.TagNameOnly(named)
	return "", []string{reference.FamiliarName(named), named.Name(), reference.FamiliarString(tagged), tagged.String()}
}

// egress asks whether the workload may connect to anything.
func egress(g trust.Grant, s mesh.Spec) Row {
	kind, _, _ := strings.Cut(string(s.Egress), ":")
	var wanted []string
	if kind != "" && kind != string(mesh.EgressNone) {
		wanted = append(wanted, kind)
	}
	for _, text := range s.Hosts {
		// A host that cannot be read is none that may be reached.
		if h, err := mesh.ParseHost(text); (err != nil || h.Private()) && !slices.Contains(wanted, mesh.EgressPrivate) {
			wanted = append(wanted, mesh.EgressPrivate)
		}
	}
	missing := slices.DeleteFunc(slices.Clone(wanted), func(k string) bool { return slices.Contains(g.Quota.Egress, k) })
	row := Row{Kind: mesh.Denied, Check: mesh.Check{
		Rule: "grant.egress", Want: string(s.Egress), Limit: strings.Join(append([]string{string(mesh.EgressNone)}, g.Quota.Egress...), ", "),
		Pass: len(missing) == 0,
	}}
	if !row.Pass {
		row.Reason = fmt.Sprintf("egress %s is not in your grant there", strings.Join(missing, " and "))
		row.Ask = "--egress " + strings.Join(append(slices.Clone(g.Quota.Egress), missing...), ",")
	}
	return row
}

// wallClock asks whether a guest may learn what time it is, which belongs to what a
// peer that may observe can see.
func wallClock(g trust.Grant, s mesh.Spec) Row {
	row := permission("grant.observe", "read this machine's clock", "observe", g, trust.Observe)
	row.Pass = row.Pass || s.Clock == ""
	if row.Pass && s.Clock == "" {
		row.Want = "no clock"
	}
	return row
}

// MayConnect judges whether a workload that runs may still reach out, under the
// grant of its owner as it is now.
func MayConnect(g trust.Grant, s mesh.Spec) Decision {
	return verdict(tidy([]Row{permission("grant.deploy", "deploy here", "deploy", g, trust.Deploy), egress(g, s)}), "grant.egress", "within the grant")
}
