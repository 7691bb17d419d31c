package trust

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"peercompute/pkg/mesh"
)

// Quota bounds what a peer may use. Zero means nothing of it.
type Quota struct {
	Workloads int            `json:"workloads"`
	Resources mesh.Resources `json:"resources"` // sums over its workloads; PIDs and Fuel are per workload
	Names     int            `json:"names"`
	Requests  int            `json:"requests"` // a minute
	// Form says which of the fields below the one who wrote it knew. They are left
	// out of older entries, whose bytes are hashed.
	Form    int      `json:"form,omitempty"`
	FuelDay uint64   `json:"fuel_day,omitempty"` // units of schedule fuel/1 a day, which ends at midnight UTC
	Images  []string `json:"images,omitempty"`   // patterns of what it may run; AnyImage = everything
	Egress  []string `json:"egress,omitempty"`   // kinds of egress besides none
	// SignedBy are mesh.SigningKeys, as text: what it runs must be signed by one of
	// them, besides being among Images. Empty = no signature is asked for.
	SignedBy []string `json:"signed_by,omitempty"`
}

const quotaForm = 1

// Patterns of Quota.Images that are words.
const (
	AnyImage   = "any"    // any image and any module
	AnyModule  = "wasm"   // any WASM module; its file name proves nothing, so no other pattern but a digest matches it
	AnyPushed  = "pushed" // any image that the peer itself pushed here; no pattern of names matches one
	maxImages  = 32       // patterns
	maxPattern = 256      // characters
	maxSigners = 8        // keys
)

// EgressKinds are the kinds of egress that a grant may add to none.
func EgressKinds() []string {
	return []string{"internet", string(mesh.EgressAllow), mesh.EgressPrivate}
}

// DefaultQuota is what a new grant gets where the owner says nothing.
func DefaultQuota() Quota {
	return Quota{
		Workloads: 10,
		Resources: mesh.Resources{MilliCPU: 2000, Memory: 2 << 30, Disk: 2 << 30, PIDs: 512, Fuel: 1_000_000_000_000},
		Names:     10,
		Requests:  600,
		Form:      quotaForm,
		FuelDay:   defaultFuelDay,
		Images:    []string{AnyImage},
	}
}

// defaultFuelDay is about what one core burns in a day.
const defaultFuelDay = 100_000_000_000_000

// Unbounded is the quota of the local person: what this machine lends is the bound.
func Unbounded(workloads int, r mesh.Resources) Quota {
	return Quota{
		Workloads: workloads, Resources: r, Names: math.MaxInt32, Requests: math.MaxInt32,
		Form: quotaForm, FuelDay: math.MaxUint64, Images: []string{AnyImage}, Egress: EgressKinds(),
	}
}

// upgraded is the quota as it is meant: one that was written before there was
// fuel for a day or a list of images was not bounded by them.
func (q Quota) upgraded() Quota {
	if q.Form < 1 {
		q.FuelDay, q.Images, q.Form = defaultFuelDay, []string{AnyImage}, quotaForm
	}
	return q
}

// problems lists what is wrong with a quota.
func (q Quota) problems() (bad []string) {
	if q.Workloads < 0 || q.Names < 0 || q.Requests < 0 || q.Resources.MilliCPU < 0 || q.Resources.Memory < 0 || q.Resources.Disk < 0 {
		bad = append(bad, "quotas cannot be negative")
	}
	if len(q.Images) > maxImages {
		bad = append(bad, fmt.Sprintf("more than %d patterns of images", maxImages))
	}
	for _, p := range q.Images {
		if !validPattern(p) {
			bad = append(bad, fmt.Sprintf("%q is no pattern of an image: a digest (sha256:…), a prefix that ends in /, a name in which * stands for anything but /, %s, %s, or %s", p, AnyModule, AnyPushed, AnyImage))
		}
	}
	for _, e := range q.Egress {
		if !slices.Contains(EgressKinds(), e) {
			bad = append(bad, fmt.Sprintf("%q is no kind of egress that can be granted; choose of %s", e, strings.Join(EgressKinds(), ", ")))
		}
	}
	if len(q.SignedBy) > maxSigners {
		bad = append(bad, fmt.Sprintf("more than %d keys that sign", maxSigners))
	}
	for _, text := range q.SignedBy {
		// In one form only, because it is compared and shown by its fingerprint.
		if k, err := mesh.ParseSigningKey(text); err != nil || k.String() != text {
			bad = append(bad, "a key of --signed-by cannot be read")
		}
	}
	return bad
}

func validPattern(p string) bool {
	if p == "" || len(p) > maxPattern || strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' }) {
		return false
	}
	return !strings.HasPrefix(p, "sha256:") || mesh.ValidDigest(p)
}
