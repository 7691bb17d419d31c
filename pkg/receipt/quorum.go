package receipt

import "peercompute/pkg/wire"

// Agreeing finds the largest set of runs of the same job that came out alike in all
// that a receipt states of them, and returns their places; of equally large ones that
// with the first run. A nil receipt is of a run that came to nothing, and agrees with
// none; so does one that did not end by itself, by what it was given.
func Agreeing(runs []*wire.Receipt) []int {
	var best []int
	seen := make([]bool, len(runs))
	for i, r := range runs {
		if r == nil || seen[i] || Repeatable(r) != nil {
			continue
		}
		group := []int{i}
		for j := i + 1; j < len(runs); j++ {
			if other := runs[j]; other != nil && !seen[j] && Repeatable(other) == nil && len(Differences(r, other)) == 0 {
				group, seen[j] = append(group, j), true
			}
		}
		if len(group) > len(best) {
			best = group
		}
	}
	return best
}
