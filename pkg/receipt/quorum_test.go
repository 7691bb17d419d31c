package receipt

import (
	"slices"
	"testing"

	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
)

// A peer that lies signs its lie with its own key, so that its receipt holds. What it
// states is held against the others'.
func TestAgreeing(t *testing.T) {
	alice := newParty(t, 1)
	run := func(n byte, lie func(*wire.Receipt)) *wire.Receipt {
		by := newParty(t, 10+n)
		p := payload(by.id, alice.id, int(n))
		if lie != nil {
			lie(&p)
		}
		r, err := wire.OpenReceipt(sealed(t, by, p))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	output := func(r *wire.Receipt) { r.Output = DigestOf([]byte("lie")) }
	for name, tc := range map[string]struct {
		runs []*wire.Receipt
		want []int
	}{
		"all":        {[]*wire.Receipt{run(0, nil), run(1, nil), run(2, nil)}, []int{0, 1, 2}},
		"none":       {nil, nil},
		"failed":     {[]*wire.Receipt{nil, run(1, nil), nil, run(3, nil)}, []int{1, 3}},
		"all failed": {[]*wire.Receipt{nil, nil}, nil},
		"output":     {[]*wire.Receipt{run(0, output), run(1, nil), run(2, nil)}, []int{1, 2}},
		"two lie alike": {[]*wire.Receipt{
			run(0, output), run(1, nil), run(2, output), run(3, nil), run(4, nil),
		}, []int{1, 3, 4}},
		"log":  {[]*wire.Receipt{run(0, nil), run(1, func(r *wire.Receipt) { r.Log = DigestOf([]byte("x")) }), run(2, nil)}, []int{0, 2}},
		"exit": {[]*wire.Receipt{run(0, nil), run(1, func(r *wire.Receipt) { r.Code = 1 }), run(2, nil)}, []int{0, 2}},
		"fuel": {[]*wire.Receipt{run(0, nil), run(1, nil), run(2, func(r *wire.Receipt) { r.Fuel-- })}, []int{0, 1}},
		"seed": {[]*wire.Receipt{run(0, func(r *wire.Receipt) { r.Seed[0]++ }), run(1, nil), run(2, nil)}, []int{1, 2}},
		"input read": {[]*wire.Receipt{
			run(0, nil), run(1, func(r *wire.Receipt) { r.Input = DigestOf([]byte("i")) }), run(2, nil),
		}, []int{0, 2}},
		"ended from outside, alike": {[]*wire.Receipt{
			run(0, func(r *wire.Receipt) { r.Kind = mesh.Timeout }), run(1, func(r *wire.Receipt) { r.Kind = mesh.Timeout }), run(2, nil),
		}, []int{2}},
	} {
		if got := Agreeing(tc.runs); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
